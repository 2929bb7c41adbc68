"""One process at a time trains a run."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types

import psutil
import pytest

from gpicl_flax.errors import Diverged, GpiclError, Preempted
from gpicl_flax.records import lease
from gpicl_flax.records.run_folder import DONE, RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def elsewhere(folder):
    """Writes a lease as another process would."""

    def write(number=1, *, age=0.0, **fields):
        process, now = psutil.Process(), time.time()
        started = process.create_time()
        record = lease.LeaseRecord(number, socket.gethostname(), process.pid, started, now - age, now - age)
        record = dataclasses.replace(record, **fields)
        path = folder.path / ".claim" / f"{number:08d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lease._data(record))
        return record

    return write


def files(folder):
    return sorted(path.name for path in (folder.path / ".claim").iterdir())


def test_of_many_threads_exactly_one_gets_it(folder):
    for _ in range(20):
        start, results = threading.Barrier(16), []

        def take(start=start, results=results):
            start.wait()
            results.append(lease.acquire(folder))

        threads = [threading.Thread(target=take) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (own,) = (result for result in results if isinstance(result, lease.Lease))
        others = [result for result in results if isinstance(result, lease.LeaseRecord)]
        assert len(others) == 15
        assert all(other.holds for other in others)
        own.release("preempted")
    assert len(files(folder)) == 1 and own.number >= 20


def test_of_several_processes_exactly_one_gets_it(folder):
    code = (
        "import sys; from gpicl_flax.records import lease; from gpicl_flax.records.run_folder import RunFolder\n"
        "print('ready', flush=True); input()\n"
        "own = lease.acquire(RunFolder(sys.argv[1])); print(isinstance(own, lease.Lease), flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        got = [process.stdout.readline() == "True\n" for process in processes]
        assert sum(got) == 1
        assert isinstance(lease.acquire(folder), lease.LeaseRecord)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    with lease.acquire(folder) as own:  # who dies without a word is seen to be dead at once
        assert own.number == 2


def test_a_live_process_is_named_and_keeps_it(folder, elsewhere):
    elsewhere(host="tpu-7", pid=12)
    record = lease.acquire(folder)
    assert isinstance(record, lease.LeaseRecord) and str(record) == "host tpu-7, process 12"
    assert files(folder) == ["00000001.json"]


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "tpu-7", "age": 91.0},
        {"pid": 2**22 + 1},  # more than Linux gives
        {"started": 1.0},  # the number was given to another process
        {"host": "tpu-7", "state": "released", "why": "failed: out of memory"},
    ],
    ids=["no sign of life", "no such process", "another process", "released"],
)
def test_what_nobody_holds_is_taken_at_once(folder, elsewhere, fields):
    elsewhere(number=7, **fields)
    with lease.acquire(folder) as own:
        assert own.number == 8 and files(folder) == ["00000008.json"]


def test_a_number_that_had_been_used_is_not_used_again(folder, elsewhere, monkeypatch):
    elsewhere(number=3, state="released")
    seen = lease._Files.newest
    late = iter([seen(lease._Files(folder))])
    elsewhere(number=5, host="tpu-7")
    (folder.path / ".claim" / "00000003.json").unlink()
    # Who looked before the others acted wants number 4.
    monkeypatch.setattr(lease._Files, "newest", lambda self: next(late, None) or seen(self))
    record = lease.acquire(folder)
    assert isinstance(record, lease.LeaseRecord) and record.number == 5
    assert files(folder) == ["00000005.json"]


def test_a_claim_that_was_never_finished_counts_until_it_is_old(folder, elsewhere):
    elsewhere()
    path = folder.path / ".claim" / "00000001.json"
    path.write_bytes(b"")
    assert isinstance(lease.acquire(folder), lease.LeaseRecord)
    os.utime(path, (time.time() - 100,) * 2)
    with lease.acquire(folder) as own:
        assert own.number == 2


def test_the_owner_gives_signs_of_life(folder, monkeypatch, wait_for):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with lease.acquire(folder) as own:
        first = lease.newest(folder)
        wait_for(lambda: lease.newest(folder).time != first.time)
        own.check()
        assert lease.newest(folder).since == first.since


def test_who_was_thought_dead_learns_that_it_lost(folder, elsewhere, monkeypatch, wait_for):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with lease.acquire(folder) as own:
        elsewhere(number=2, host="tpu-7")
        wait_for(lambda: own.lost)
        with pytest.raises(lease.LeaseLost, match="taken over by another process"):
            own.check()
    assert lease.newest(folder).host == "tpu-7" and lease.newest(folder).state == "running"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "done"),
        (Preempted("stopped"), "preempted"),
        (KeyboardInterrupt(), "preempted"),
        (Diverged("diverged"), "diverged"),
        (RuntimeError("out of memory\nand a lot of detail"), "failed: out of memory"),
        (GpiclError("a checkpoint is damaged"), "failed: a checkpoint is damaged"),
    ],
)
def test_it_says_how_it_ended(folder, error, why):
    try:
        with lease.acquire(folder):
            if error:
                raise error
    except BaseException as caught:
        assert caught is error
    newest = lease.newest(folder)
    assert (newest.state, newest.why, newest.holds) == ("released", why, False)


def test_a_run_that_is_marked_done_is_released_as_done(folder):
    with pytest.raises(Preempted), lease.acquire(folder):
        folder.mark(DONE)
        raise Preempted("another member of the stack goes on")
    assert lease.newest(folder).why == "done"


def test_a_claim_that_is_withdrawn_says_what_was_said_before(folder, elsewhere):
    for fields, why in (
        ({"age": 100.0, "host": "a"}, "preempted"),
        ({"state": "released", "why": "failed: x"}, "failed: x"),
    ):
        elsewhere(number=1, **fields)
        for path in (folder.path / ".claim").glob("0000000[2-9].json"):
            path.unlink()
        lease.acquire(folder).withdraw()
        assert lease.newest(folder).why == why


def test_where_there_are_objects_and_no_files_it_is_the_same():
    folder = types.SimpleNamespace(path=_Url("memory://bucket/run"), ended=None)
    with lease.acquire(folder) as own:
        assert isinstance(lease.acquire(folder), lease.LeaseRecord)
        files = lease._Files(folder)
        assert not files.create(files.newest())
    with lease.acquire(folder) as again:
        assert (own.number, again.number, files.numbers()) == (1, 2, [2])
    assert json.loads(files._fs.cat_file(files._path(2)))["why"] == "done"


class _Url(str):
    def __truediv__(self, name):
        return _Url(f"{self}/{name}")


def test_a_request_that_was_sent_twice_finds_its_own_claim(folder, monkeypatch):
    create = lease._Files.create
    monkeypatch.setattr(lease._Files, "create", lambda self, me: create(self, me) and create(self, me))
    with lease.acquire(folder) as own:
        assert own.number == 1
