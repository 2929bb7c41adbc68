"""Runs on digits that end before their last step: alone, interrupted and in a stack."""

import pathlib

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import Preempted
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.training.checkpoint import Checkpoints

MODEL = ["Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "adam.learning_rate = 1e-2"]
STEPS = ["Training.steps_per_dispatch = 2", "Training.checkpoint_period = 6"]
DIAGNOSED = ["Training.diagnostics = @Diagnostics()", "Diagnostics.period = 4", "Diagnostics.num_sequences = 8"]
EARLY_STOP = ["Training.early_stop = @EarlyStop()"]
STANDS = [*EARLY_STOP, "EarlyStop.plateau_steps = 8"]
# One task without permuted labels is learned, and the plateau left, within twenty steps.
EASY = ["TaskDistribution.num_tasks = 1", "TaskDistribution.permute_labels_prob = 0.0", "adam.learning_rate = 0.1"]
HARD = ["TaskDistribution.num_tasks = 1024", "TaskDistribution.permute_labels_prob = 1.0"]


@pytest.fixture(scope="module")
def configure(small_bindings):
    def make(*bindings, steps=30):
        return parse([], [*small_bindings, *MODEL, *STEPS, f"Training.steps = {steps}", *bindings])

    return make


def crash_at(step):
    """A row callback that raises at the first row from that step on."""

    def on_row(row):
        if row["step"] >= step:
            raise RuntimeError("crash")

    return on_row


@pytest.fixture(scope="module")
def stopped(start, configure, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    start(configure(*STANDS, *DIAGNOSED), folder)
    return folder


@pytest.fixture(scope="module")
def shorter(start, configure, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("shorter") / "run")
    start(configure(*DIAGNOSED, steps=10), folder)
    return folder


def test_a_run_that_stands_on_its_plateau_ends_there_as_a_shorter_run_would(stopped, shorter):
    rows, expected = json_lines.read(stopped.metrics), json_lines.read(shorter.metrics)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert rows[-1].pop("stopped_early") == "plateau" and rows == expected
    assert rows[-1]["plateau_left_at"] is None and rows[-1]["phase"] == "Plateau"
    assert stopped.ended == "DONE" and stopped.read_run_info()["steps"] == 30
    (evaluation,) = stopped.evaluations.iterdir()
    assert evaluation.name == "step_00000010.json"
    assert evaluation.read_bytes() == shorter.evaluation(10).read_bytes()
    with Checkpoints(stopped.checkpoints) as checkpoints:
        assert checkpoints.latest_step == 10


def test_to_start_it_again_does_nothing(start, configure, stopped):
    def written():
        files = pathlib.Path(stopped.path).rglob("*")
        return {file: file.stat().st_mtime_ns for file in files if ".claim" not in file.parts}

    before, rows = written(), []
    start(configure(*STANDS, *DIAGNOSED), stopped, rows.append)
    assert not rows and written() == before


@pytest.mark.parametrize(
    "stops",
    [
        # The second with the row that decides, when the last dispatch is under way.
        pytest.param([(4, "stop"), (8, "stop")], marks=pytest.mark.slow),
        [(8, "crash"), (10, "stop")],  # from the checkpoint of step 6, and with all but the meta-test made
    ],
)
def test_an_interrupted_run_stops_where_it_would_have_stopped(
    start, contents, sigterm_at, configure, stopped, tmp_path, stops
):
    config, folder = configure(*STANDS, *DIAGNOSED), RunFolder(tmp_path / "run")
    for step, how in stops:
        with pytest.raises(Preempted if how == "stop" else RuntimeError):
            start(config, folder, sigterm_at(step) if how == "stop" else crash_at(step))
        assert folder.ended is None
    start(config, folder)
    assert contents(folder) == contents(stopped)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("judged_by", "why"),
    [("training", "converged"), ("unseen", "plateau")],  # a single task is learned, but nothing of others
)
def test_a_run_is_judged_by_either_loss(start, configure, tmp_path, judged_by, why):
    settings = [
        *EASY,
        "EarlyStop.converged_steps = 4",
        "EarlyStop.min_improvement = 0.9",
        "EarlyStop.plateau_steps = 24",
    ]
    config = configure(*EARLY_STOP, *DIAGNOSED, *settings, f"EarlyStop.judged_by = '{judged_by}'")
    folder = RunFolder(tmp_path / "run")
    start(config, folder)
    last = json_lines.read(folder.metrics)[-1]
    assert last["plateau_left_at"] <= 22 and last["stopped_early"] == why
    assert last["step"] == (26 if why == "plateau" else last["plateau_left_at"] + 4 + 2)
    assert folder.latest_evaluation()["step"] == last["step"] and folder.ended == "DONE"


def test_without_it_nothing_changes(start, configure, shorter, tmp_path):
    config = configure(*DIAGNOSED, *EARLY_STOP, "EarlyStop.plateau_steps = 1000", steps=10)
    never = RunFolder(tmp_path / "never")
    start(config, never)
    assert shorter.metrics.read_bytes() == never.metrics.read_bytes()
    assert b"stopped_early" not in shorter.metrics.read_bytes()
    assert shorter.latest_evaluation() == never.latest_evaluation()
    assert "Training.early_stop = None" in shorter.operative_config.read_text()


def run_stack(configs, path, on_row=lambda row: None):
    folders = [RunFolder(path / str(index)) for index in range(len(configs))]
    with StopRequest() as stop:
        assert (
            execute([RunSpec.from_config(*each, on_row) for each in zip(configs, folders, strict=True)], stop)
            == [None] * 2
        )
    return folders


@pytest.mark.slow
def test_a_member_that_stops_does_not_disturb_the_other(start, contents, sigterm_at, configure, tmp_path):
    settings = [*STANDS, "EarlyStop.plateau_steps = 24"]
    configs = [configure(*settings, *HARD), configure(*settings, *EASY)]
    folders = run_stack(configs, tmp_path / "stack")
    for index, (steps, why) in enumerate(((26, "plateau"), (30, None))):
        alone = RunFolder(tmp_path / "alone" / str(index))
        start(configs[index], alone)
        rows, expected = json_lines.read(folders[index].metrics), json_lines.read(alone.metrics)
        assert [row["step"] for row in rows] == [row["step"] for row in expected] == list(range(2, steps + 1, 2))
        assert rows[-1].get("stopped_early") == expected[-1].get("stopped_early") == why
        for name in ("loss", "loss_ema", "param_norm"):
            np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=2e-4, err_msg=name)
        found, curves = folders[index].latest_evaluation(), alone.latest_evaluation()
        assert found["step"] == curves["step"] == steps and folders[index].ended == "DONE"
        np.testing.assert_allclose(found["curves"][-1]["loss"], curves["curves"][-1]["loss"], rtol=1e-3)

    with pytest.raises(Preempted):
        run_stack(configs, tmp_path / "parts", sigterm_at(24))
    with pytest.raises(RuntimeError):  # the first has stopped before it
        run_stack(configs, tmp_path / "parts", crash_at(28))
    for found, expected in zip(run_stack(configs, tmp_path / "parts"), folders, strict=True):
        assert contents(found) == contents(expected)


@pytest.mark.slow
def test_a_stack_ends_when_all_have_stopped(configure, tmp_path):
    rows = []
    configs = [configure(*STANDS, f"Run.seed = {seed}") for seed in (0, 1)]
    folders = run_stack(configs, tmp_path, rows.append)
    assert [row["step"] for row in rows] == [step for step in range(2, 11, 2) for _ in folders]
    assert [folder.ended for folder in folders] == ["DONE"] * 2
