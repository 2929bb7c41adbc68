"""What the folders of a sweep tell about it."""

import io
import json
import time
from types import SimpleNamespace

import pytest

from gpicl_flax.errors import Preempted
from gpicl_flax.records import lease, schemas
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder, write_json
from gpicl_flax.runs import status
from gpicl_flax.sweep import table


@pytest.fixture
def workdir(tmp_path):
    return tmp_path


def folder_of(workdir, name, *, steps=1000, step=None, every=1.0, num_tasks=None, **last):
    """A run folder with a log that ends now, of ten steps every so many seconds, and `last` in its last row."""
    folder = RunFolder(workdir / name)
    write_json(folder.run_info, {"steps": steps, "num_tasks": num_tasks, "base_dataset": {"name": "digits"}})
    if step is not None:
        metrics, timing, now = JsonLines(folder.metrics), JsonLines(folder.timing, schemas.TIMING), time.time()
        for at in range(10, step + 1, 10):
            row = {"step": at, "loss_ema": 2.0 - at / 1000, "accuracy_last": at / 1000, "plateau": False}
            row |= {"plateau_left_at": 10, "phase": None} | (last if at == step else {})
            metrics.append(row)
            timing.append({"step": at, "time": now + 1000 - (step - at) / 10 * every})
        metrics.flush()
        timing.flush()
    return folder


def a_point(name):
    return SimpleNamespace(run_id=name, digest=name, legacy_ids=())


def read(workdir, name):
    return status.read_status(name, RunFolder(workdir / name))


def test_every_state_is_told_apart(other_holds, workdir):
    folder_of(workdir, "done", step=1000).mark(DONE)
    folder_of(workdir, "diverged", step=20).mark(DIVERGED)
    with pytest.raises(Preempted), lease.acquire(folder_of(workdir, "preempted", step=500)):
        raise Preempted("stopped")
    with pytest.raises(RuntimeError), lease.acquire(folder_of(workdir, "failed", step=10)):
        raise RuntimeError("out of memory\nat length")
    killed = folder_of(workdir, "killed", step=30)
    other_holds(killed, time=0.0)
    (workdir / "empty").mkdir()
    folder_of(workdir, "damaged", step=20).run_info.write_text("{}]")
    with lease.acquire(folder_of(workdir, "running", step=400, every=0.5)):
        states = {name: read(workdir, name) for name in (*status.STATES, "killed", "empty")}
    for name in status.STATES:
        assert states[name].state == name
    assert states["killed"].state == "preempted" and states["empty"].state == "waiting"
    running = states["running"]
    assert (running.step, running.steps, running.loss, running.accuracy) == (400, 1000, 1.6, 0.4)
    assert running.seconds_left == pytest.approx(600 / 20, rel=1e-3)
    assert running.who.startswith("host ") and "process" in running.who
    assert states["failed"].who.endswith(": out of memory")
    assert "run.json is damaged" in states["damaged"].who and "; restore it from a copy" in states["damaged"].who
    assert [each.seconds_left for name, each in states.items() if name != "running"] == [None] * 8


def test_the_table_ends_with_how_many_are_in_which_state(workdir):
    folder_of(workdir, "a", step=1000).mark(DONE)
    folder_of(workdir, "b", step=20, steps=50_000).mark(DIVERGED)
    points = [a_point(name) for name in ("a", "b", "c", "d")]
    found = table.read_all(points, workdir)
    lines = table.as_table(found).split("\n")
    assert lines[-1] == "4 points: 1 done, 2 waiting, 1 diverged"
    assert lines[2].split() == ["b", "diverged", "20/50,000", "1.980", "2.0%", "left", "at", "10"]
    assert lines[3].split() == ["c", "waiting"]
    assert json.loads(found[0].as_json()) == {
        **{"run_id": "a", "state": "done", "step": 1000, "steps": 1000, "loss": 1.0, "accuracy": 1.0},
        **{"seconds_left": None, "who": "", "plateau": False, "plateau_left_at": 10, "phase": None},
        **{"stopped_early": None, "log_gaps": []},
    }


def test_the_table_says_where_points_stand_and_which_stopped_early(workdir):
    stopped = {"stopped_early": "plateau", "plateau": True, "plateau_left_at": None, "phase": "Plateau"}
    folder_of(workdir, "a", step=110, **stopped).mark(DONE)
    folder_of(workdir, "b", step=500, plateau=True, phase="Overfit")
    folder_of(workdir, "c", step=500, phase="Generalize")
    folder_of(workdir, "d")
    with lease.acquire(folder_of(workdir, "e", step=110, **stopped)):  # others of its stack go on
        found = table.read_all([a_point(name) for name in "abcde"], workdir)
    lines = table.as_table(found).split("\n")
    assert lines[0].split() == "run id state step loss last accuracy plateau phase time left who".split()
    assert lines[1].split()[:3] == ["a", "done", "110/1,000"]
    assert lines[1].split()[5:] == ["on", "it", "plateau", "stopped", "early:", "plateau"]
    assert lines[2].endswith("left at 10, back  overfit") and lines[3].endswith("left at 10        generalize")
    assert lines[4].split() == ["d", "waiting", "0/1,000"]
    assert found[4].state == "running" and found[4].seconds_left is None
    assert lines[-1] == "5 points: 1 done, 1 running, 3 waiting; 2 stopped early"


@pytest.mark.parametrize(
    ("num_tasks", "last", "at", "row_says", "ended", "expected"),
    [
        (64, 0.5, 500, None, None, "Generalize"),
        (64, 0.2, 500, None, None, "Overfit"),
        (None, 0.2, 500, None, None, "Plateau"),
        (64, 0.5, 5, None, None, None),  # it was on its plateau then
        (64, 0.2, 500, "Generalize", None, "Generalize"),
        (64, 0.2, 500, "Generalize", DONE, "Overfit"),
    ],
)
def test_where_the_log_does_not_tell_the_phase_the_newest_meta_test_does(
    workdir, num_tasks, last, at, row_says, ended, expected
):
    folder = folder_of(workdir, "a", step=500, num_tasks=num_tasks, phase=row_says)

    def curve(tasks, base_dataset, last):
        bounds = {"accuracy_low": [0.0, last - 0.1], "accuracy_high": [0.2, last + 0.1]}
        return {"base_dataset": base_dataset, "tasks": tasks, "accuracy": [0.1, last]} | bounds

    curves = [curve("seen", "digits", 0.9), curve("unseen", "x", 0.9), curve("unseen", "digits", last)]
    write_json(folder.evaluation(at), {"step": at, "curves": curves})
    if ended:
        folder.mark(ended)
    assert read(workdir, "a").phase == expected


def test_a_log_of_an_older_version_is_shown_as_far_as_it_goes(workdir):
    folder = RunFolder(workdir / "a")
    write_json(folder.run_info, {"steps": 20})
    log = JsonLines(folder.metrics)
    log.append({"step": 10, "loss_ema": 2.0, "accuracy_last": 0.1, "plateau": False})
    log.flush()
    line = table.as_table([read(workdir, "a")]).split("\n")[1]
    assert line.split() == ["a", "waiting", "10/20", "2.000", "10.0%", "left"]


def test_a_terminal_is_refreshed_until_all_have_ended_or_ctrl_c(workdir):
    points, stream = [a_point("a")], io.StringIO()
    folder = folder_of(workdir, "a", step=10)
    table.watch(lambda: points, workdir, stream, sleep=lambda seconds: folder.mark(DONE))
    assert stream.getvalue().count("\033[H") == 2 and "1 points: 1 waiting" in stream.getvalue()

    def interrupt(seconds):
        raise KeyboardInterrupt

    table.watch(lambda: [*points, a_point("b")], workdir, stream, sleep=interrupt)
    assert stream.getvalue().count("\033[H") == 3


def test_a_long_table_is_cut_to_the_terminal_but_for_its_counts(workdir, monkeypatch):
    monkeypatch.setattr(table.shutil, "get_terminal_size", lambda: (40, 10))
    cut = table._cut(table.as_table([status.Status(f"run_{n}", "waiting") for n in range(30)]))
    assert len(cut.split("\n")) == 9 and cut.endswith("... and 24 more\n30 points: 30 waiting")
