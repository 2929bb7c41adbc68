"""A half-finished run whose log has lost rows is not resumed without a word."""

import json
import shutil

import pytest

from gpicl_flax.analysis.data import one_run, runs
from gpicl_flax.analysis.report import run_summary
from gpicl_flax.config import parse
from gpicl_flax.errors import Damaged
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import status
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.inspection import inspect
from gpicl_flax.runtime.preemption import StopRequest

# It would stop early at its plateau after 12 steps, by a rule that needs all rows. It has a checkpoint after 6.
BINDINGS = [
    "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "Training.steps = 30",
    "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 6", "Training.diagnostics = @Diagnostics()",
    "Diagnostics.period = 2", "Diagnostics.num_sequences = 8", "Training.early_stop = @EarlyStop()",
    "EarlyStop.converged_steps = 6", "EarlyStop.min_improvement = 0.9", "TaskDistribution.num_tasks = 1",
    "TaskDistribution.permute_labels_prob = 0.0", "adam.learning_rate = 0.1", "EarlyStop.plateau_steps = 24",
]  # fmt: skip


class Crash(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def config(small_bindings):
    return parse([], [*small_bindings, *BINDINGS])


@pytest.fixture(scope="module")
def resume(config):
    def resume(folder, until=None, **options):
        def on_row(row):
            if until is not None and row["step"] >= until:
                raise Crash

        with StopRequest() as stop:
            execute([RunSpec.from_config(config, folder, on_row)._replace(**options)], stop)

    return resume


@pytest.fixture(scope="module")
def whole(resume, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("whole") / "run")
    resume(folder)
    return folder


@pytest.fixture(scope="module")
def _half(whole, resume, tmp_path_factory):
    """Killed after a checkpoint at which it had left its plateau, and before its end."""
    rows = json_lines.read(whole.metrics)
    left, last = rows[-1]["plateau_left_at"], rows[-1]["step"]
    assert left is not None and rows[-1]["stopped_early"] == "converged"
    checkpoint = -(-left // 6) * 6
    assert checkpoint < last
    folder = RunFolder(tmp_path_factory.mktemp("half") / "run")
    with pytest.raises(Crash):
        resume(folder, until=checkpoint + 2)
    return folder, checkpoint


@pytest.fixture
def half(_half, tmp_path):
    return RunFolder(shutil.copytree(_half[0].path, tmp_path / "run"))


def without_first(text):
    return text.split("\n", 1)[1]


DAMAGES = {
    "deleted": None,
    "emptied": lambda text: "",
    "shortened": lambda text: text.split("\n")[0] + "\n",
    "first lost": without_first,
    "a number": lambda text: text.replace('"loss_ema": 2', '"loss_ema": 1', 1),
    "garbage": lambda text: '{"step": 2, garb\n' + without_first(text),
}


def damage(folder, how):
    if DAMAGES[how] is None:
        folder.metrics.unlink()
    else:
        folder.metrics.write_text(DAMAGES[how](folder.metrics.read_text()))


ONCE_IN_A_WHILE = ("emptied", "first lost", "garbage")


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.slow) if how in ONCE_IN_A_WHILE else how for how in DAMAGES]
)
def test_it_is_refused_and_nothing_is_written(resume, half, how):
    damage(half, how)
    before = half.metrics.read_bytes() if half.metrics.exists() else None
    with pytest.raises(Damaged, match=r"metrics\.jsonl.*--accept_lost_log"):
        resume(half)
    assert (half.metrics.read_bytes() if half.metrics.exists() else None) == before and half.ended is None


def test_asked_for_it_ends_where_it_would_have_ended_and_the_gap_is_named(resume, whole, half, _half):
    checkpoint = _half[1]
    damage(half, "deleted")
    resume(half, accept_lost_log=True)
    rows, expected = json_lines.read(half.metrics), json_lines.read(whole.metrics)
    assert rows == [row for row in expected if row["step"] > checkpoint]
    assert half.latest_evaluation() == whole.latest_evaluation()
    left_at = expected[-1]["plateau_left_at"]
    (gap,) = half.read_run_info()["log_gaps"]
    counts = {"rows_expected": checkpoint // 2, "rows_found": 0}
    assert gap == {"up_to_step": checkpoint, **counts, "plateau_left_at": left_at, "unseen_plateau_left_at": None}
    words = f"metrics.jsonl lost rows up to step {checkpoint} (0 of {checkpoint // 2} found)"
    assert one_run.read(half).gaps == [words]
    assert status.read_status("run", half).log_gaps == (words,)
    assert words in inspect(half).as_text()
    table = runs.load(half.path)
    assert table["gaps"].tolist() == [words] and table["plateau_steps"].tolist() == [left_at]
    assert f"left by step {left_at} " in run_summary.plateau_sentence(half)
    assert words in run_summary.plateau_sentence(half)


@pytest.mark.slow
def test_the_gap_stays_named_after_the_next_interruption(resume, half, _half):
    damage(half, "deleted")
    with pytest.raises(Crash):
        resume(half, accept_lost_log=True, until=_half[1] + 2)
    with pytest.raises(Damaged):  # there is no checkpoint yet that would say so
        resume(half)
    resume(half, accept_lost_log=True)
    assert len(half.read_run_info()["log_gaps"]) == 1 and half.ended == "DONE"


@pytest.mark.slow
def test_how_a_row_is_written_and_what_comes_after_the_checkpoint_do_not_matter(resume, whole, half):
    rows = json_lines.read(half.metrics)
    text = "".join(json.dumps(dict(reversed(row.items())), separators=(",", ":")) + "\r\n" for row in rows)
    half.metrics.write_text(text + "\ngarbage\n")
    resume(half)
    assert json_lines.read(half.metrics) == json_lines.read(whole.metrics)


def test_a_checkpoint_of_an_earlier_version_is_resumed_with_one_warning(resume, whole, half, caplog):
    for file in half.checkpoints.glob("*/meta/metadata"):
        meta = json.loads(file.read_text())
        del meta["log"]
        file.write_text(json.dumps(meta))
    resume(half)
    assert [record.message for record in caplog.records if "earlier version" in record.message].__len__() == 1
    assert half.metrics.read_bytes() == whole.metrics.read_bytes()
    newest = max(half.checkpoints.glob("*"), key=lambda path: int(path.name))
    assert json.loads((newest / "meta" / "metadata").read_text())["log"]["rows"] == len(json_lines.read(whole.metrics))
