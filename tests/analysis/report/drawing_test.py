import pickle

import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import registry
from gpicl_flax.analysis.report import drawing, report


@pytest.fixture
def sweep(make_run, make_curve, tmp_path):
    """Ten runs of five interventions, which take two figures of those that show four at most."""
    curves = [make_curve("seen"), make_curve("unseen", last=0.6)]
    for number in range(5):
        for seed in (0, 1):
            labels = {"intervention": f"i{number}", "dataset": f"d{number}"}
            make_run(
                tmp_path / "sweep" / f"i{number}_{seed}", left_at=10 * number, labels=labels, seed=seed,
                evaluations={100: curves},
            )  # fmt: skip
    return tmp_path / "sweep"


def test_other_processes_get_the_study_and_what_draws_it(sweep):
    found = study.load(sweep)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.table.equals(found.table) and copy.run(3).run_id == found.run(3).run_id
    jobs = [*drawing.jobs(found, registry.comparisons()), *drawing.diagnostics_jobs(found)]
    copies = pickle.loads(pickle.dumps(jobs))
    assert [job(copy).title for job in copies[-2:]] == [job(found).title for job in jobs[-2:]]


def test_a_chart_of_a_part_says_which(sweep):
    found = study.load(sweep)
    entries = (entry for entry in registry.comparisons() if entry.most)
    entry = next(entry for entry in entries if len(found.parts(entry.column, entry.most)) == 2)
    charts = [job(found) for job in drawing.jobs(found, [entry])]
    assert [chart.name[-2:] for chart in charts] == ["_1", "_2"]
    assert [chart.title.endswith(f" ({number} of 2)") for number, chart in enumerate(charts, 1)] == [True, True]


def test_charts_are_kept_without_their_figures(sweep, tmp_path):
    found = study.load(sweep)
    with drawing.saver(found, tmp_path) as save:
        saved = list(save(drawing.diagnostics_jobs(found)[:1]))
    assert [(one.chart.figure, bool(one.section)) for one in saved] == [(None, True)]
    assert {path.suffix for path in tmp_path.glob("diagnostics_*")} == {".png", ".svg", ".csv"}


@pytest.mark.slow
def test_two_processes_write_the_same_report(sweep, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    report.write(sweep, alone)
    report.write(sweep, together, processes=2)
    files = {path.name for path in alone.iterdir()}
    assert files == {path.name for path in together.iterdir()}
    for name in files:
        if not name.endswith(".svg"):  # matplotlib names clip paths by their places in memory
            assert (alone / name).read_bytes() == (together / name).read_bytes(), name
