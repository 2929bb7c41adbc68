"""A sweep that ends a point by the points like it, beside one that has no like."""

import json
import math
import os
import shutil
import signal

import pytest

from gpicl_flax.analysis.data.plateau_replay import stop_step
from gpicl_flax.config import parse
from gpicl_flax.errors import Preempted, UsageError
from gpicl_flax.records import json_lines, plateau_rule
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.records.run_folder import DONE, RunFolder, write_json
from gpicl_flax.runs.plateau_stop import PlateauStop
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import grid, runner, table

STEPS, STAY, LEAVE = 24, 6, 3
BINDINGS = [
    "Run.model = @Transformer()",
    "Transformer.num_layers = 1",
    "Transformer.model_size = 16",
    "Transformer.key_size = 4",
    "Transformer.num_heads = 1",
    "Run.optimizer = @adam()",
    "adam.learning_rate = 1e-4",
    f"Training.steps = {STEPS}",
    "Training.steps_per_dispatch = 2",
    "Training.checkpoint_period = 6",
    "Training.diagnostics = @Diagnostics()",
    "Diagnostics.period = 2",
    "Diagnostics.num_sequences = 8",
]
SEEDS = list(range(1 + STAY + LEAVE))
GRIDS = f"sweep.grids = [{{'Run.seed': {SEEDS}}}, {{'adam.learning_rate': 1e-5, 'Run.seed': 0}}]"
SETTINGS = PlateauStop(confidence=0.8)


@pytest.fixture
def points(small_bindings):
    bindings = [*small_bindings, *BINDINGS, GRIDS, "sweep.plateau_stop = {'confidence': 0.8}"]
    return grid.points(parse([], bindings))


def write_ended(folder, left):
    """A point that stayed on its plateau, or left it with step 20, when its matching score had grown to 0.99."""
    folder.path.mkdir(parents=True)
    write_json(folder.run_info, {"num_classes": 10, "num_tasks": None, "steps": STEPS})
    rows = []
    for step in range(2, STEPS + 1, 2):
        loss = 2.1 if left and step >= 20 else 2.4
        score = 0.99 * math.exp(0.04 * min(step - 20, 0)) if left else 0.05
        diagnostics = {"unseen_loss": 2.4, "unseen_accuracy_last": 0.1, "matching_score": [[score]]}
        rows.append({"step": step, "loss_ema": loss, "plateau": loss > 2.2, "diagnostics": diagnostics})
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.mark(DONE)


@pytest.fixture
def workdir(points, tmp_path):
    workdir = tmp_path / "sweep"
    for number, point in enumerate(points[1 : 1 + STAY + LEAVE]):
        write_ended(RunFolder(workdir / point.run_id), left=number < LEAVE)
    return workdir


def run_all(points, workdir, on_row=lambda row, member: None, settings: PlateauStop | None = SETTINGS):
    with StopRequest() as stop:
        runner.run_all(
            lambda: points,
            workdir,
            stop,
            say=lambda line: None,
            make_progress=lambda steps, members: on_row,
            plateau_stop=settings,
        )


def stop_at(step):
    """A callback that asks for a stop at a step of the first point, once."""
    sent = []

    def on_row(row, member):
        if row["step"] >= step and not sent:
            sent.append(row)
            os.kill(os.getpid(), signal.SIGTERM)

    return on_row


@pytest.mark.slow
def test_a_point_ends_by_its_like(points, workdir):
    run_all(points, workdir)
    first, alone = (RunFolder(workdir / points[index].run_id) for index in (0, -1))
    rows, rule = json_lines.read(first.metrics), plateau_rule.read(first)
    assert rule is not None and (rule.like, rule.left, rule.stayed, rule.missed) == (9, 3, 6, 0)
    assert rows[-1]["step"] == 10 and rows[-1]["stopped_early"] == "plateau"  # with the fourth diagnosis, and on
    assert rows[-1]["leave_probability"] == rule.probability(8) == pytest.approx(0.5 / 7)
    assert stop_step(rule, rows, PlateauTracker(10, None), STEPS) == 8  # as a replay of it sees it
    # The one whose learning rate differs has no like, and makes all its steps.
    rule = plateau_rule.read(alone)
    assert rule is not None and (rule.like, rule.steps) == (0, ())
    assert json_lines.read(alone.metrics)[-1]["step"] == STEPS
    found = table.read_all(points, workdir)
    assert [each.stopped_early for each in (found[0], found[-1])] == ["plateau", None]
    assert "1 stopped early" in table.counts(found) and "stopped early: plateau" in table.as_table(found)


@pytest.mark.slow
def test_whenever_it_is_interrupted_a_point_ends_where_it_would_have_ended(points, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "parts")
    run_all(points[: 1 + STAY + LEAVE], workdir)
    first, parts = (RunFolder(path / points[0].run_id) for path in (workdir, tmp_path / "parts"))
    # Between two checkpoints, and with the row that decides. What ends meanwhile changes nothing.
    for number, step in enumerate((4, 8)):
        with pytest.raises(Preempted):
            run_all(points, tmp_path / "parts", stop_at(step))
        like = RunFolder(tmp_path / "parts" / points[STAY + number].run_id)
        shutil.rmtree(like.path)
        write_ended(like, left=True)
    run_all(points[:1], tmp_path / "parts", settings=None)  # the file counts, not the setting
    for name in ("early_stop.json", "metrics.jsonl", "run.json", "config.gin", "eval/step_00000010.json"):
        assert (parts.path / name).read_bytes() == (first.path / name).read_bytes(), name


@pytest.mark.slow
def test_a_point_that_was_begun_without_a_rule_goes_on_without(points, workdir):
    with pytest.raises(Preempted):
        run_all(points[:1], workdir, stop_at(4), settings=None)
    run_all(points, workdir)
    first = RunFolder(workdir / points[0].run_id)
    assert plateau_rule.read(first) is None and json_lines.read(first.metrics)[-1]["step"] == STEPS


def test_the_setting_changes_no_point(points, small_bindings):
    off = grid.points(parse([], [*small_bindings, *BINDINGS, GRIDS]))
    assert [(point.run_id, point.config.text, point.legacy_ids) for point in points] == [
        (point.run_id, point.config.text, point.legacy_ids) for point in off
    ]


def test_points_without_diagnostics_are_refused(small_bindings, tmp_path):
    bindings = [*small_bindings, *BINDINGS[:-3], "sweep.grids = [{'Run.seed': [0]}]"]
    with pytest.raises(
        UsageError, match=r"sweep.plateau_stop needs Training.diagnostics = @Diagnostics\(\); .* has none"
    ):
        run_all(grid.points(parse([], bindings)), tmp_path)
