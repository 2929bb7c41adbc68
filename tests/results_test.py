"""The tables that are kept in results/ can be read, and docs/results.md says what they say."""

import pathlib

import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import fig03_within_sequence
from gpicl_flax.analysis.report import insights
from gpicl_flax.learners import learner

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs/results.md").read_text()
SWEEPS = [
    "fig3",
    "fig3_32x32x3",
    "fig3_laptop",
    "fig4",
    "fig7",
    "fig9",
    "lstm",
    "state_size",
    "table2",
    "without_warm_up",
]


@pytest.fixture(scope="module", params=SWEEPS)
def runs(request):
    return study.load(ROOT / "results" / request.param)


def test_runs_are_whole(runs):
    assert (runs.table["gaps"] == "").all() and runs.table["evaluated_at"].notna().all()


def test_tables_are_few_and_small():
    files = [path for path in (ROOT / "results").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {*SWEEPS, "learner"}
    assert all(path.suffix in (".csv", ".gz", ".json") for path in files)
    assert len(files) < 80 and sum(path.stat().st_size for path in files) < 3e6


@pytest.mark.parametrize(
    ("sweep", "count"), [("fig3", 8), ("fig3_32x32x3", 2), ("fig3_laptop", 8), ("fig7", 2), ("lstm", 2)]
)
def test_accuracies_after_99_examples_are_those_of_the_text(sweep, count):
    last = fig03_within_sequence.numbers(study.load(ROOT / "results" / sweep)).query(
        "position == 99 and tasks == 'unseen'"
    )
    assert len(last) == count
    for row in last.itertuples():
        if row.runs != 2 or row.test_dataset == "my_mnist":
            assert f"{row.mean:.1%} [{row.low:.1%}, {row.high:.1%}]" in TEXT
        else:
            assert f"{row.mean:.1%} (" in TEXT


@pytest.mark.parametrize(
    ("number", "sweep", "find"),
    [
        (1, "fig3", insights.black_boxes),
        (2, "fig4", insights.augmentations),
        (3, "fig4", insights.transitions),
        (4, "state_size", insights.large_state),
    ],
)
def test_verdicts_are_those_of_the_text(number, sweep, find):
    found = find(study.load(ROOT / "results" / sweep))
    (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| {number}. "))
    assert f"| {found.verdict} |" in row and f"results/{sweep}" in row


def test_the_card_is_of_the_learner_that_ships():
    card, shipped = (learner.SHIPPED / "CARD.md").read_text(), learner.load()
    assert f"{shipped.run_info['parameters']:,} parameters, state size {shipped.run_info['state_size_paper']:,}" in card
    assert f"{shipped.run_info['steps']:,} steps of {shipped.run_info['task_batch_size']} sequences" in card
    kept = study.load(ROOT / "results/learner")
    assert kept.single and kept.table["last_step"].tolist() == [shipped.run_info["steps"]]
    assert kept.table["plateau_left"].tolist() == [True]
