import os
import signal

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import GpiclError, Preempted, UsageError
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.sweep import grid, listing, runner, stacking
from gpicl_flax.training.preemption import StopRequest

BINDINGS = [
    "Run.model = @LSTM()",
    "LSTM.hidden_size = 4",
    "Run.optimizer = @adam()",
    "Training.steps = 4",
    "Training.steps_per_dispatch = 2",
    "Training.checkpoint_period = 2",
]


def run_all(points, runs, workdir, **more):
    with StopRequest() as stop:
        runner.run_all(points, runs, workdir, stop, **more)


def keep_rows(rows):
    return lambda total_steps, num_members: lambda row, member: rows.append((member, row))


@pytest.fixture
def sweep(small_bindings):
    def make(grids):
        points = grid.points(parse([], [*small_bindings, *BINDINGS, f"sweep.grids = {grids}"]))
        return points, listing.resolve_all(points)

    return make


def test_points_run_once_each_in_folders_of_their_own(sweep, tmp_path):
    points, runs = sweep("[{'Run.seed': [0, 1]}]")
    rows, said = [], []
    run_all(points, runs, tmp_path, make_progress=keep_rows(rows), say=said.append)
    assert {path.name for path in tmp_path.iterdir()} == {point.run_id for point in points}
    assert all(RunFolder(tmp_path / point.run_id).ended == "DONE" for point in points)
    assert len(rows) == 4
    # A second call, of a sweep that has grown, runs only what is new.
    points, runs = sweep("[{'Run.seed': [0, 1, 2]}]")
    rows.clear()
    said.clear()
    run_all(points, runs, tmp_path, make_progress=keep_rows(rows), say=said.append)
    assert len(rows) == 2
    assert [line.endswith("DONE") for line in said] == [True, True, False]


def test_points_of_one_shape_train_together(sweep, tmp_path):
    points, runs = sweep("[{'Run.seed': [0, 1, 2], 'adam.learning_rate': [1e-3, 1e30]}]")
    rows, said = [], []
    with pytest.raises(GpiclError, match="3 of 6 points diverged"):
        run_all(points, runs, tmp_path, stack_sizes=stacking.at_most(4), make_progress=keep_rows(rows), say=said.append)
    for size in (4, 2):
        assert sum(line == f"(these {size} train together, as a stack)" for line in said) == 1
    assert sum("diverged at step" in line for line in said) == 3
    assert len(rows) == 3 * 2 and {row["step"] for _, row in rows} == {2, 4}
    ended = [RunFolder(tmp_path / point.run_id).ended for point in points]
    assert ended == ["DIVERGED" if point.overrides["adam.learning_rate"] == 1e30 else "DONE" for point in points]


def test_a_point_that_diverges_does_not_stop_the_others_and_is_not_repeated(sweep, tmp_path):
    points, runs = sweep("[{'adam.learning_rate': [1e30, 1e-3]}]")
    said = []
    for _ in range(2):
        with pytest.raises(GpiclError, match="1 of 2 points diverged") as caught:
            run_all(points, runs, tmp_path, say=said.append)
        assert caught.value.exit_code == 1
    ended = {RunFolder(path).ended for path in tmp_path.iterdir()}
    assert ended == {"DONE", "DIVERGED"}
    assert sum("diverged at step" in line for line in said) == 1


def test_a_preempted_sweep_goes_on_where_it_stopped(sweep, tmp_path):
    points, runs = sweep("[{'Run.seed': [0, 1]}]")
    sent = []

    def stop_once(row, member):
        if not sent:
            sent.append(row)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        run_all(points, runs, tmp_path, make_progress=lambda total, members: stop_once)
    assert not any(RunFolder(path).ended for path in tmp_path.iterdir())
    run_all(points, runs, tmp_path)
    assert all(RunFolder(tmp_path / point.run_id).ended == "DONE" for point in points)


def test_a_folder_in_the_way_is_found_before_anything_runs(sweep, tmp_path):
    points, runs = sweep("[{'Run.seed': [0, 1]}]")
    (tmp_path / points[1].run_id).mkdir()
    (tmp_path / points[1].run_id / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run folder"):
        run_all(points, runs, tmp_path)
    assert not (tmp_path / points[0].run_id).exists()


def test_a_stop_at_the_very_end_of_a_run_does_not_start_the_next(sweep, tmp_path):
    points, runs = sweep("[{'Run.seed': [0, 1]}]")
    said = []

    def say(text):
        said.append(text)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        run_all(points, runs, tmp_path, say=say)
    assert len(said) == 1


def test_what_a_later_point_needs_is_checked_before_the_first_runs(sweep, tmp_path):
    for grids, words in (
        ("[{'TaskDistribution.base_dataset': ['digits', 'no_such_dataset']}]", "unknown base dataset"),
        ("[{'Training.accumulation': [1, 3]}]", "not divisible"),
    ):
        points, runs = sweep(grids)
        with pytest.raises(UsageError, match=words):
            run_all(points, runs, tmp_path)
        assert not list(tmp_path.iterdir())
