import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import GpiclError, Preempted, UsageError
from gpicl_flax.records import lease, stack_lease
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import execute as execute_module
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import grid, listing, runner, stacking, stage_runner

BINDINGS = [
    "Run.model = @LSTM()",
    "LSTM.hidden_size = 4",
    "Run.optimizer = @adam()",
    "Training.steps = 4",
    "Training.steps_per_dispatch = 2",
    "Training.checkpoint_period = 2",
]


def run_all(points, workdir, **more):
    with StopRequest() as stop:
        runner.run_all(lambda: points, workdir, stop, **more)


def keep_rows(rows):
    return lambda total_steps, num_members: lambda row, member: rows.append((member, row))


@pytest.fixture
def sweep(small_bindings):
    def make(grids):
        return grid.points(parse([], [*small_bindings, *BINDINGS, f"sweep.grids = {grids}"]))

    return make


def test_points_run_once_each_in_folders_of_their_own(sweep, tmp_path):
    points = sweep("[{'Run.seed': [0, 1]}]")
    rows, said = [], []
    run_all(points, tmp_path, make_progress=keep_rows(rows), say=said.append)
    assert {path.name for path in tmp_path.iterdir()} == {point.run_id for point in points}
    assert all(RunFolder(tmp_path / point.run_id).ended == "DONE" for point in points)
    assert len(rows) == 4
    # A second call, of a sweep that has grown, runs only what is new.
    points = sweep("[{'Run.seed': [0, 1, 2]}]")
    rows.clear()
    said.clear()
    run_all(points, tmp_path, make_progress=keep_rows(rows), say=said.append)
    assert len(rows) == 2
    assert [line.endswith("DONE") for line in said] == [True, True, False]


@pytest.mark.slow
def test_points_of_one_shape_train_together(sweep, tmp_path):
    points = sweep("[{'Run.seed': [0, 1, 2], 'adam.learning_rate': [1e-3, 1e30]}]")
    rows, said = [], []
    with pytest.raises(GpiclError, match="3 of 6 points diverged"):
        run_all(points, tmp_path, stack_sizes=stacking.at_most(4), make_progress=keep_rows(rows), say=said.append)
    for size in (4, 2):
        assert sum(line == f"(these {size} train together, as a stack)" for line in said) == 1
    assert sum("diverged at step" in line for line in said) == 3
    assert len(rows) == 3 * 2 and {row["step"] for _, row in rows} == {2, 4}
    ended = [RunFolder(tmp_path / point.run_id).ended for point in points]
    assert ended == ["DIVERGED" if point.overrides["adam.learning_rate"] == 1e30 else "DONE" for point in points]


def test_a_point_that_diverges_does_not_stop_the_others_and_is_not_repeated(sweep, tmp_path):
    points = sweep("[{'adam.learning_rate': [1e30, 1e-3]}]")
    said = []
    for _ in range(2):
        with pytest.raises(GpiclError, match="1 of 2 points diverged") as caught:
            run_all(points, tmp_path, say=said.append)
        assert caught.value.exit_code == 1
    ended = {RunFolder(path).ended for path in tmp_path.iterdir()}
    assert ended == {"DONE", "DIVERGED"}
    assert sum("diverged at step" in line for line in said) == 1


@pytest.mark.slow
def test_a_preempted_sweep_goes_on_where_it_stopped(sweep, tmp_path):
    points = sweep("[{'Run.seed': [0, 1]}]")
    sent = []

    def stop_once(row, member):
        if not sent:
            sent.append(row)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        run_all(points, tmp_path, make_progress=lambda total, members: stop_once)
    assert not any(RunFolder(path).ended for path in tmp_path.iterdir())
    run_all(points, tmp_path)
    assert all(RunFolder(tmp_path / point.run_id).ended == "DONE" for point in points)


def test_a_folder_in_the_way_is_found_before_anything_runs(sweep, tmp_path):
    points = sweep("[{'Run.seed': [0, 1]}]")
    (tmp_path / points[1].run_id).mkdir()
    (tmp_path / points[1].run_id / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run folder"):
        run_all(points, tmp_path)
    assert not (tmp_path / points[0].run_id).exists()


def test_a_stop_at_the_very_end_of_a_run_does_not_start_the_next(sweep, tmp_path):
    points = sweep("[{'Run.seed': [0, 1]}]")
    said = []

    def say(text):
        said.append(text)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        run_all(points, tmp_path, say=say)
    assert len(said) == 1


def test_what_a_later_point_needs_is_checked_before_the_first_runs(sweep, tmp_path):
    for grids, words in (
        ("[{'TaskDistribution.base_dataset': ['digits', 'no_such_dataset']}]", "unknown base dataset"),
        ("[{'Training.accumulation': [1, 3]}]", "not divisible"),
    ):
        points = sweep(grids)
        with pytest.raises(UsageError, match=words):
            run_all(points, tmp_path)
        assert not list(tmp_path.iterdir())


def test_two_workers_on_one_folder_train_every_point_once(sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0, 1, 2, 3]}]")
    trained, said, ended = [], {"a": [], "b": []}, []
    left = threading.Event()

    def execute(starts, stop, on_begin):  # without training: Orbax does not save two runs at once in one process
        with stack_lease.hold([start.folder for start in starts]):
            on_begin()
            for start in starts:
                trained.append(start.folder.path.name)
                left.wait(600)  # until the other worker has come to a point that is held
                start.folder.mark("DONE")
        return [None for _ in starts]

    def work(name):
        stop = StopRequest()  # not active: signals are for the main thread

        def say(line):
            said[name].append(line)
            if "left to host" in line:
                left.set()

        runner.run_all(lambda: points, tmp_path, stop, say=say, poll_seconds=0.02)
        ended.append(name)

    monkeypatch.setattr(stage_runner, "execute", execute)
    resolved = listing.resolve_points(points)  # here, because gin is not for threads
    monkeypatch.setattr(listing, "resolve_points", lambda points: resolved if points else [])
    workers = [threading.Thread(target=work, args=(name,)) for name in said]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
    assert sorted(ended) == ["a", "b"]
    assert sorted(trained) == sorted(point.run_id for point in points)
    assert any(f"left to host {socket.gethostname()}" in line for lines in said.values() for line in lines)


@pytest.mark.launch
def test_two_processes_on_one_folder_leave_what_one_alone_would(small_bindings, tmp_path):
    bindings = [
        *small_bindings,
        *BINDINGS,
        "Training.steps = 400",
        "Training.checkpoint_period = 200",
        "sweep.grids = [{'Run.seed': [0, 1, 2, 3]}]",
    ]
    (tmp_path / "sweep.gin").write_text("\n".join(["include 'gin/base.gin'", *bindings]))
    command = [sys.executable, "-m", "gpicl_flax", "sweep", "--gin_file", str(tmp_path / "sweep.gin"), "--workdir"]

    def start(name):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, str(tmp_path / name)], **pipes)

    workers = [start("two"), start("two")]
    outputs = [worker.communicate(timeout=3000)[0] for worker in workers]
    alone = start("alone")
    alone_output = alone.communicate(timeout=3000)[0]
    assert [worker.returncode for worker in (*workers, alone)] == [0, 0, 0], [*outputs, alone_output]
    assert any("left to host" in output for output in outputs)
    status = subprocess.run([*command, str(tmp_path / "two"), "--status"], capture_output=True, text=True, check=True)
    assert status.stdout.endswith("4 points: 4 done\n")
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names and len(names) == 4
    for name in names:
        files = [RunFolder(tmp_path / workers / name).metrics for workers in ("two", "alone")]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert lease.newest(RunFolder(tmp_path / "two" / name)).number == 1  # nobody took anything over


def test_what_another_host_trains_is_left_until_it_dies_and_then_finished(other_holds, sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0, 1]}]")
    folders = [RunFolder(tmp_path / point.run_id) for point in points]
    other_holds(folders[0])
    said, slept = [], []

    def sleep(seconds):
        slept.append(seconds)
        assert [folder.ended for folder in folders] == [None, "DONE"]
        if len(slept) == 3:
            other_holds(folders[0], time=time.time() - 100)

    monkeypatch.setattr(stage_runner.time, "sleep", sleep)
    run_all(points, tmp_path, say=said.append, poll_seconds=7.0)
    first, second = points[0].run_id, points[1].run_id
    assert said == [f"[1/2] {first}: left to host tpu-7, process 12", f"[2/2] {second}", f"[1/2] {first}"]
    assert slept == [7.0] * 3 and folders[0].ended == "DONE"
    assert lease.newest(folders[0]).number == 2


def test_who_loses_a_close_race_for_a_point_says_only_who_has_it(other_holds, sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0]}]")
    folder, said, hold = RunFolder(tmp_path / points[0].run_id), [], stack_lease.hold

    def hold_too_late(folders, wait=None):
        other_holds(folder)
        return hold(folders, wait)

    monkeypatch.setattr(stack_lease, "hold", hold_too_late)
    monkeypatch.setattr(stage_runner.time, "sleep", lambda seconds: folder.mark("DONE"))
    run_all(points, tmp_path, say=said.append)
    name = f"[1/1] {points[0].run_id}"
    assert said == [f"{name}: left to host tpu-7, process 12", f"{name}: DONE"]


def test_what_another_host_ends_is_not_trained_again(other_holds, sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0]}]")
    folder, said = RunFolder(tmp_path / points[0].run_id), []
    other_holds(folder)
    monkeypatch.setattr(stage_runner.time, "sleep", lambda seconds: folder.mark("DIVERGED", "diverged at step 3\n"))
    with pytest.raises(GpiclError, match="1 of 1 points diverged"):
        run_all(points, tmp_path, say=said.append)
    assert said[-1].endswith(": DIVERGED") and not folder.metrics.exists()


def test_who_waits_for_others_stops_when_told_to(other_holds, sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0]}]")
    other_holds(RunFolder(tmp_path / points[0].run_id))
    monkeypatch.setattr(stage_runner.time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="others train"):
        run_all(points, tmp_path)


def test_a_point_that_fails_does_not_stop_the_others_and_is_tried_again(sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0, 1]}]")
    said, real = [], execute_module.train

    def train(model, members, *rest, **more):
        if members[0].seed == 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\na page of buffers")
        return real(model, members, *rest, **more)

    monkeypatch.setattr(execute_module, "train", train)
    with pytest.raises(GpiclError, match="1 of 2 points failed") as caught:
        run_all(points, tmp_path, say=said.append)
    assert caught.value.exit_code == 1
    assert f"{points[0].run_id}: failed: RESOURCE_EXHAUSTED: out of memory" in said
    folders = [RunFolder(tmp_path / point.run_id) for point in points]
    assert [folder.ended for folder in folders] == [None, "DONE"]
    assert lease.newest(folders[0]).why == "failed: RESOURCE_EXHAUSTED: out of memory"
    monkeypatch.setattr(execute_module, "train", real)
    run_all(points, tmp_path)
    assert [folder.ended for folder in folders] == ["DONE", "DONE"]


def test_of_several_processes_a_failing_one_does_not_go_on_without_the_others(sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0, 1]}]")

    def fail(starts, stop, on_begin):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(stage_runner, "execute", fail)
    monkeypatch.setattr(stage_runner, "decide", lambda compute: compute())
    monkeypatch.setattr(stage_runner, "any_of", lambda flag: flag)
    monkeypatch.setattr(stage_runner.StageRunner, "check", lambda _, indices: indices)
    monkeypatch.setattr(stage_runner.jax, "process_count", lambda: 2)
    with pytest.raises(RuntimeError):
        run_all(points, tmp_path)


def test_a_run_that_was_taken_over_meanwhile_is_left_to_who_has_it(other_holds, sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0]}]")
    folder, said = RunFolder(tmp_path / points[0].run_id), []

    def lose(starts, stop, on_begin):
        on_begin()
        other_holds(folder)
        raise lease.LeaseLost("taken over")

    monkeypatch.setattr(stage_runner, "execute", lose)
    monkeypatch.setattr(stage_runner.time, "sleep", lambda seconds: folder.mark("DONE"))
    run_all(points, tmp_path, say=said.append)
    assert said[1:] == ["taken over", f"[1/1] {points[0].run_id}: left to host tpu-7, process 12", f"{said[0]}: DONE"]


def test_a_run_that_another_worker_saw_diverge_just_now_does_not_stop_the_sweep(sweep, tmp_path, monkeypatch):
    points = sweep("[{'Run.seed': [0, 1]}]")
    folders = [RunFolder(tmp_path / point.run_id) for point in points]

    def execute(starts, stop, on_begin):
        (start,) = starts
        if start.folder.path == folders[0].path:
            start.folder.mark("DIVERGED", "diverged at step 3\n")
            raise UsageError(f"{start.folder} holds a run that diverged")
        start.folder.mark("DONE")
        return [None]

    monkeypatch.setattr(stage_runner, "execute", execute)
    with pytest.raises(GpiclError, match="1 of 2 points diverged"):
        run_all(points, tmp_path)
    assert [folder.ended for folder in folders] == ["DIVERGED", "DONE"]
