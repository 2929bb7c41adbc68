"""What the folders of a sweep tell about it."""

import io
import json
import time
from types import SimpleNamespace

import pytest

from gpicl_flax.errors import Preempted
from gpicl_flax.records import claim
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder, write_json
from gpicl_flax.sweep import status


@pytest.fixture
def workdir(tmp_path):
    return tmp_path


def folder_of(workdir, name, *, steps=1000, step=None, every=1.0):
    """A run folder with a log that ends now, of ten steps every so many seconds."""
    folder = RunFolder(workdir / name)
    write_json(folder.facts, {"steps": steps})
    if step is not None:
        metrics, timing, now = JsonLines(folder.metrics), JsonLines(folder.timing), time.time()
        for at in range(10, step + 1, 10):
            metrics.append({"step": at, "loss_ema": 2.0 - at / 1000, "accuracy_last": at / 1000, "plateau": False})
            timing.append({"step": at, "time": now + 1000 - (step - at) / 10 * every})
        metrics.flush()
        timing.flush()
    return folder


def read(workdir, name):
    return status.read(name, RunFolder(workdir / name))


def test_every_state_is_told_apart(other_holds, workdir):
    folder_of(workdir, "done", step=1000).mark(DONE)
    folder_of(workdir, "diverged", step=20).mark(DIVERGED)
    with pytest.raises(Preempted), claim.take(folder_of(workdir, "preempted", step=500)):
        raise Preempted("stopped")
    with pytest.raises(RuntimeError), claim.take(folder_of(workdir, "failed", step=10)):
        raise RuntimeError("out of memory\nat length")
    killed = folder_of(workdir, "killed", step=30)
    other_holds(killed, time=0.0)
    (workdir / "empty").mkdir()
    with claim.take(folder_of(workdir, "running", step=400, every=0.5)):
        states = {name: read(workdir, name) for name in (*status.STATES, "killed", "empty")}
    for name in status.STATES:
        assert states[name].state == name
    assert states["killed"].state == "preempted" and states["empty"].state == "waiting"
    running = states["running"]
    assert (running.step, running.steps, running.loss, running.accuracy) == (400, 1000, 1.6, 0.4)
    assert running.seconds_left == pytest.approx(600 / 20, rel=1e-3)
    assert running.who.startswith("host ") and "process" in running.who
    assert states["failed"].who.endswith(": out of memory")
    assert [each.seconds_left for name, each in states.items() if name != "running"] == [None] * 7


def test_the_table_ends_with_how_many_are_in_which_state(workdir):
    folder_of(workdir, "a", step=1000).mark(DONE)
    folder_of(workdir, "b", step=20, steps=50_000).mark(DIVERGED)
    points = [SimpleNamespace(run_id=name) for name in ("a", "b", "c", "d")]
    found = status.read_all(points, workdir)
    lines = status.as_table(found).split("\n")
    assert lines[-1] == "4 points: 1 done, 2 waiting, 1 diverged"
    assert lines[2].split() == ["b", "diverged", "20/50,000", "1.980", "2.0%"]
    assert lines[3].split() == ["c", "waiting"]
    assert json.loads(found[0].as_json()) == {
        **{"run_id": "a", "state": "done", "step": 1000, "steps": 1000, "loss": 1.0, "accuracy": 1.0},
        **{"seconds_left": None, "who": ""},
    }


def test_a_terminal_is_refreshed_until_all_have_ended_or_ctrl_c(workdir):
    points, stream = [SimpleNamespace(run_id="a")], io.StringIO()
    folder = folder_of(workdir, "a", step=10)
    status.watch(points, workdir, stream, sleep=lambda seconds: folder.mark(DONE))
    assert stream.getvalue().count("\033[H") == 2 and "1 points: 1 waiting" in stream.getvalue()

    def interrupt(seconds):
        raise KeyboardInterrupt

    status.watch([*points, SimpleNamespace(run_id="b")], workdir, stream, sleep=interrupt)
    assert stream.getvalue().count("\033[H") == 3


def test_a_long_table_is_cut_to_the_terminal_but_for_its_counts(workdir, monkeypatch):
    monkeypatch.setattr(status.shutil, "get_terminal_size", lambda: (40, 10))
    table = status._cut(status.as_table([status.Status(f"run_{n}", "waiting") for n in range(30)]))
    assert len(table.split("\n")) == 9 and table.endswith("... and 24 more\n30 points: 30 waiting")
