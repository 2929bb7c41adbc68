"""One process at a time trains a run."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from gpicl_flax.errors import GpiclError
from gpicl_flax.records import lease, lease_files
from gpicl_flax.records.run_folder import RunFolder


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
        path.write_bytes(lease_files._data(record))
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


WRONG = [{"pid": "x"}, {"pid": -5}, {"pid": 2**70}, {"time": None}, {"started": []}, {"since": {}}, {"state": 3}]


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_lease_of_wrong_types_is_not_held_for_ever(folder, elsewhere, fields):
    record = elsewhere()
    path = folder.path / ".claim" / "00000001.json"
    path.write_text(json.dumps(json.loads(lease_files._data(record)) | fields))
    os.utime(path, (0, 0))
    with lease.acquire(folder) as own:
        assert isinstance(own, lease.Lease)


def test_a_time_far_in_the_future_does_not_count(folder, elsewhere):
    elsewhere(time=time.time() + 1e9, host="tpu-7")
    assert lease.newest(folder).holds  # its file is new
    os.utime(folder.path / ".claim" / "00000001.json", (0, 0))
    with lease.acquire(folder) as own:
        assert isinstance(own, lease.Lease)


def test_something_else_in_the_place_of_leases(folder, elsewhere):
    (folder.path / ".claim" / "00000001.json").mkdir(parents=True)
    os.utime(folder.path / ".claim" / "00000001.json", (0, 0))
    with lease.acquire(folder) as own:
        assert own.number == 2
    elsewhere(number=99_999_999, age=1e6)
    with pytest.raises(GpiclError, match="a lease has the number 99999999; delete it"):
        lease.acquire(folder)
    shutil.rmtree(folder.path / ".claim")
    (folder.path / ".claim").write_text("")
    with pytest.raises(GpiclError, match=r"\.claim is damaged: it is no folder; delete it"):
        lease.acquire(folder)


def test_what_killed_processes_left_is_removed(folder, elsewhere):
    elsewhere(age=1e6)
    (folder.path / ".claim" / ".00000001.json.0123abcd.tmp").write_text("{")
    with lease.acquire(folder):
        assert files(folder) == ["00000002.json"]


def test_a_process_that_was_stopped_for_long_looks_at_the_files_at_once(folder, elsewhere, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 1e6)  # its thread does not come to it
    with lease.acquire(folder) as own:
        elsewhere(number=2)
        own.check()
        monkeypatch.setattr(lease_files, "LEASE_SECONDS", 0.0)
        with pytest.raises(lease.LeaseLost):
            own.check()


def test_on_remote_storage_exactly_one_of_many_gets_it_and_a_listing_tells_who(gcs):
    for number in range(12):
        folder, start = RunFolder(f"gs://bucket/run{number}"), threading.Barrier(8)

        def take(folder=folder, start=start):
            start.wait()
            return lease.acquire(folder)

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            results = [future.result() for future in [threads.submit(take) for _ in range(8)]]
        (own,) = (result for result in results if isinstance(result, lease.Lease))
        assert all(result.number == own.number for result in results)
        gcs.mark()
        assert lease.newest(folder).holds
        assert [record["kind"] for record in gcs.requests()] == ["list"]
        own.release(lease.DONE)
        assert not lease.newest(folder).holds and lease.newest(folder).why == lease.DONE


def test_on_remote_storage_another_process_takes_over(gcs, monkeypatch):
    folder = RunFolder("gs://bucket/run")
    own = lease.acquire(folder)
    assert lease.acquire(folder).number == own.number
    monkeypatch.setattr(lease_files, "LEASE_SECONDS", -1.0)
    other = lease.acquire(folder)
    assert other.number == own.number + 1 and list(gcs.objects("bucket")) == ["run/.claim/00000002.json"]
    with pytest.raises(lease.LeaseLost, match="gs://bucket/run was taken over by another process"):
        own.check()
    for each in (own, other):  # their threads would go on with heartbeats
        each.release("")
