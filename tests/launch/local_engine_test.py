"""--engine local: worker processes on this machine, of a gpicl that is made for tests."""

import contextlib
import os
import re
import shutil
import signal
import threading

import psutil
import pytest

from gpicl_flax.launch import local, workers
from tests.launch.fake_system import Here, launcher

OPTIONS = [
    *("gin/state_size.gin", "--engine", "local", "--name", "sweep", "--workdir", "runs", "--package", "preinstalled"),
    *("--poll_seconds", "0.05"),
]
SHARED = shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2  # workers cannot have cores of their own


@pytest.fixture
def here(cloud):
    system = Here(cloud.folder)
    system.environment = cloud.environment
    return system


@pytest.fixture
def run(here, monkeypatch, capsys):
    return launcher(here, monkeypatch, capsys)


def is_running(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def cores(cloud):
    """Those of the last worker of each shard, as sets."""
    return {call["shard"]: set(call["cores"]) for call in cloud.calls("gpicl")}


def starts(cloud, shard):
    return sum(call["shard"] == shard for call in cloud.calls("gpicl"))


@pytest.fixture
def meanwhile(here):
    """Does steps in the background, in turn; ends what runs here if one fails."""
    errors, threads = [], []

    def work(steps):
        try:
            for step in steps:
                step()
        except BaseException as error:
            errors.append(error)
            here.stop()
            here.stop()

    def start(*steps):
        threads.append(threading.Thread(target=work, args=(steps,)))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()
    assert not errors


def test_a_worker_for_each_shard_on_the_cpu_backend(cloud, run):
    result = run("sweep", *OPTIONS, "--num_slices", "2", "--scale", "cpu", "--only", "model=LSTM*")
    assert result.code == 0, result.err
    calls = sorted(cloud.calls("gpicl"), key=lambda call: call["shard"])
    assert [call["shard"] for call in calls] == ["1/2", "2/2"]
    gin = ["--gin_file", "gin/state_size.gin", "--gin_file", "gin/scale/cpu.gin"]
    workdir = str(cloud.here / "runs")
    assert calls[0]["argv"] == ["sweep", *gin, "--workdir", workdir, "--only", "model=LSTM*", "--shard", "1/2"]
    assert calls[0]["environment"]["JAX_PLATFORMS"] == "cpu"
    assert "start 0 of shard 2/2" in (cloud.here / "runs/.launch/sweep-2.log").read_text()
    assert "the table of the runs" in result.out and "2 of 2 shards done" in result.out
    assert not list((cloud.here / "runs/.launch").glob("*.pid"))


def test_the_table_of_the_runs_is_asked_for_without_what_only_running_takes(run, here, monkeypatch):
    calls = []
    monkeypatch.setattr(here, "call", lambda words: calls.append(words) or Here.call(here, words))
    assert run("sweep", *OPTIONS, "--stack", "2", "--only", "model=LSTM*").code == 0
    [words] = calls
    workdir = str(here.here / "runs")
    gin = ["--gin_file", "gin/state_size.gin"]
    assert words[1:] == ["sweep", *gin, "--only", "model=LSTM*", "--workdir", workdir, "--status"]


def test_workers_have_the_backend_that_the_environment_names_and_no_other_settings(cloud, run):
    assert run("sweep", *OPTIONS, JAX_PLATFORMS="cuda").code == 0
    [call] = cloud.calls("gpicl")
    assert {name for name in call["environment"] if name.startswith("JAX_")} == {"JAX_PLATFORMS"}
    assert call["environment"]["JAX_PLATFORMS"] == "cuda"


def test_base_datasets_are_where_the_option_or_the_environment_says(cloud, run):
    folder = str(cloud.folder / "bin")
    assert run("sweep", *OPTIONS, "--data_dir", folder).code == 0
    assert run("sweep", *OPTIONS, TFDS_DATA_DIR=folder).code == 0
    assert [call["environment"]["TFDS_DATA_DIR"] for call in cloud.calls("gpicl")] == [folder] * 2


def test_workers_are_started_again_after_42_kills_and_failures_but_not_after_2(cloud, run):
    cloud.script("gpicl", **{"1/4": [42, 42, 0], "2/4": ["kill", "kill", "kill", 0], "3/4": [2], "4/4": [1] * 9})
    result = run("sweep", *OPTIONS, "--num_slices", "4", "--max_restarts", "1")
    assert result.code == 2  # since one shard was wrong usage
    assert [starts(cloud, f"{i}/4") for i in (1, 2, 3, 4)] == [3, 4, 1, 2]
    assert "killed by signal 9; starting again" in result.out
    assert "sweep-4: failed with exit code 1, 2 times in a row" in result.err
    assert "start 1 of shard 4/4: 1" in result.out  # the end of the log


def test_a_failure_is_exit_code_1(cloud, run):
    cloud.script("gpicl", **{"1/1": [1]})
    result = run("sweep", *OPTIONS, "--max_restarts", "0")
    assert result.code == 1 and "1 of 1 shards failed" in result.err


def test_a_worker_that_is_killed_without_end_is_given_up(cloud, run, monkeypatch):
    monkeypatch.setattr(local, "_QUICK_DEATHS", 2)
    cloud.script("gpicl", **{"1/1": ["kill"] * 9})
    result = run("sweep", *OPTIONS)
    assert result.code == 1 and starts(cloud, "1/1") == 3 and "killed by signal 9, 2 times in a row" in result.err


def test_max_parallel_bounds_the_workers(cloud, run, here):
    assert run("sweep", *OPTIONS, "--num_slices", "2", "--max_parallel", "1").code == 0
    said = [line.partition(", log")[0] for line in here.said if line.startswith("sweep-")]
    assert [re.sub(r"\d+$", "", line) for line in said] == [
        "sweep-1: process ", "sweep-1: done", "sweep-2: process ", "sweep-2: done",
    ]  # fmt: skip
    assert all(each == os.sched_getaffinity(0) for each in cores(cloud).values())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_being_told_to_stop_waits_until_the_workers_have_saved(cloud, run, here, meanwhile, wait_for, number, code):
    cloud.script("gpicl", **{"1/3": ["hang"], "2/3": ["hang"]})
    here.stop_signal = number
    thread = meanwhile(lambda: wait_for(lambda: len(cloud.calls("gpicl")) == 2), here.stop)
    result = run("sweep", *OPTIONS, "--num_slices", "3", "--max_parallel", "2")
    thread.join()
    assert result.code == code and result.out.count("stopped (exit code 42)") == 2
    assert len(cloud.calls("gpicl")) == 2 and not any(is_running(call["pid"]) for call in cloud.calls("gpicl"))


def test_the_second_ctrl_c_ends_workers_that_do_not_save(cloud, run, here, meanwhile, wait_for):
    cloud.script("gpicl", **{"1/1": ["deaf"]})
    told = [lambda: wait_for(lambda: cloud.calls("gpicl")), here.stop]
    told += [lambda: wait_for(lambda: any("waiting for the workers to save" in line for line in here.lines)), here.stop]
    thread = meanwhile(*told)
    result = run("sweep", *OPTIONS)
    thread.join()
    assert result.code == 130 and "stopped (exit code -9)" in result.out
    assert not is_running(cloud.calls("gpicl")[0]["pid"])


@pytest.mark.launch
def test_a_process_hears_ctrl_c_and_its_workers_do_not(cloud, wait_for):
    cloud.script("gpicl", **{"1/1": ["hang"]})
    process = cloud.start("sweep", *OPTIONS)
    wait_for(lambda: cloud.calls("gpicl"), lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "stopped (exit code 42)" in out and "interrupted" in err


def test_workers_share_the_cores_out(cloud, run, here, meanwhile, wait_for):
    usable = os.sched_getaffinity(0)
    for count, folder in ((2, "two"), (1, "one"), (len(usable) + 1, "more")):
        cloud.script("gpicl", **{f"{shard}/{count}": ["hang"] for shard in range(1, count + 1)})

        def are_there(count=count):
            return sum(shard.endswith(f"/{count}") for shard in cores(cloud)) == count

        thread = meanwhile(lambda are_there=are_there: wait_for(are_there), here.stop)
        run("sweep", *OPTIONS, "--num_slices", str(count), "--workdir", folder)
        thread.join()
    found = cores(cloud)
    if not SHARED:
        assert len(found["1/2"]) == len(found["2/2"]) == len(usable) // 2 and found["1/2"].isdisjoint(found["2/2"])
    assert found["1/1"] == found[f"1/{len(usable) + 1}"] == usable


@pytest.fixture
def left(cloud, here):
    """Two workers that a killed launcher has left: they hang until they are told to stop."""
    cloud.script("gpicl", **{"1/2": ["hang"], "2/2": ["hang"]})
    folder = cloud.here / "runs/.launch"
    folder.mkdir(parents=True)
    words = [str(cloud.folder / "bin/gpicl"), "sweep", "--shard"]
    return [workers.start(folder, f"sweep-{shard}", [*words, f"{shard}/2"], here.environment) for shard in (1, 2)]


def test_a_second_call_adopts_live_workers(cloud, run, left, meanwhile, wait_for):
    wait_for(lambda: len(cloud.calls("gpicl")) == 2)
    left[1].kill()
    left[1].wait()
    # A process that was given the number of a dead worker later is not taken for it.
    (cloud.here / "runs/.launch/sweep-2.pid").write_text(f"{os.getpid()} 1\n")
    status = run("status", "--name", "sweep", *OPTIONS[1:3], "--workdir", "runs")
    assert f"running, process {left[0].pid}" in status.out and "not running" in status.out

    def is_adopted():
        return starts(cloud, "2/2") == 2

    thread = meanwhile(lambda: wait_for(is_adopted), left[0].terminate, left[0].wait)
    result = run("sweep", *OPTIONS, "--num_slices", "2")
    thread.join()
    assert result.code == 0, result.err
    assert f"sweep-1: adopted, process {left[0].pid}" in result.out and starts(cloud, "1/2") == 2


def test_delete_stops_workers_and_waits_for_their_save(cloud, run, left, wait_for):
    wait_for(lambda: len(cloud.calls("gpicl")) == 2)
    where = ["--engine", "local", "--workdir", "runs"]
    shown = run("delete", "sweep", *where, "--dry_run")
    assert sorted(shown.out.split("\n")[:2]) == sorted(f"kill -TERM {process.pid}" for process in left)
    refused = run("delete", "sweep", *where)
    assert refused.code == 2 and "--yes" in refused.err and all(process.poll() is None for process in left)
    result = run("delete", "sweep", *where, "--yes")
    assert result.code == 0 and "sweep-1: stopped" in result.out and "sweep-2: stopped" in result.out
    assert [process.wait(60) for process in left] == [42, 42]
    assert "no workers" in run("delete", "sweep", *where, "--yes").out
    assert "no workers" in run("status", "--name", "sweep", *where).out


def test_a_working_folder_that_cannot_be_made_is_told(cloud, run):
    (cloud.here / "runs").write_text("a file")
    result = run("sweep", *OPTIONS)
    assert result.code == 2 and "runs" in result.err


def test_one_run_here(cloud, run):
    result = run("train", *OPTIONS)
    assert result.code == 0 and [call["shard"] for call in cloud.calls("gpicl")] == ["train"]
    assert "the table of the runs" not in result.out
