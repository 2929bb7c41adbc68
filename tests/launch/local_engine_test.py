"""launch/tpu_sweep.sh --engine local: worker processes on this machine."""

import contextlib
import os
import shutil
import signal

import pytest

OPTIONS = [
    *("gin/state_size.gin", "--engine", "local", "--name", "sweep", "--workdir", "runs", "--package", "preinstalled"),
    *("--poll_seconds", "0.05"),
]


SHARED = shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2  # workers cannot have cores of their own


def is_running(pid):
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


def cores(cloud):
    """Those of the last worker of each shard, as sets."""
    return {call["shard"]: set(call["cores"]) for call in cloud.calls("gpicl")}


def starts(cloud, shard):
    return sum(call["shard"] == shard for call in cloud.calls("gpicl"))


def test_a_worker_for_each_shard_on_the_cpu_backend(cloud):
    result = cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "2", "--scale", "cpu", "--only", "model=LSTM*")
    assert result.returncode == 0, result.stderr
    calls = sorted(cloud.calls("gpicl"), key=lambda call: call["shard"])
    assert [call["shard"] for call in calls] == ["1/2", "2/2"]
    gin = ["--gin_file", "gin/state_size.gin", "--gin_file", "gin/scale/cpu.gin"]
    workdir = str(cloud.here / "runs")
    assert calls[0]["argv"] == ["sweep", *gin, "--workdir", workdir, "--only", "model=LSTM*", "--shard", "1/2"]
    assert calls[0]["environment"]["JAX_PLATFORMS"] == "cpu"
    assert "start 0 of shard 2/2" in (cloud.here / "runs/.launch/sweep-2.log").read_text()
    assert "the table of the runs" in result.stdout and "2 of 2 shards done" in result.stdout
    assert not list((cloud.here / "runs/.launch").glob("*.pid"))


def test_base_datasets_are_where_the_option_or_the_environment_says(cloud):
    where = ["--data_dir", str(cloud.folder / "bin"), "--num_slices", "1"]
    for more, environment in ((where, {}), ([], {"TFDS_DATA_DIR": str(cloud.folder / "bin")})):
        assert cloud.run("tpu_sweep.sh", *OPTIONS, *more, **environment).returncode == 0
    assert [call["environment"]["TFDS_DATA_DIR"] for call in cloud.calls("gpicl")] == [str(cloud.folder / "bin")] * 2


def test_workers_are_started_again_after_42_kills_and_failures_but_not_after_2(cloud):
    cloud.script("gpicl", **{"1/4": [42, 42, 0], "2/4": ["kill", "kill", "kill", 0], "3/4": [2], "4/4": [1] * 9})
    result = cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "4", "--max_restarts", "1")
    assert result.returncode == 2  # since one shard was wrong usage
    assert [starts(cloud, f"{i}/4") for i in (1, 2, 3, 4)] == [3, 4, 1, 2]
    assert "killed by signal 9; starting again" in result.stdout
    assert "sweep-4: failed with exit code 1, 2 times in a row" in result.stderr
    assert "start 1 of shard 4/4: 1" in result.stdout  # the end of the log


def test_a_failure_is_exit_code_1(cloud):
    cloud.script("gpicl", **{"1/1": [1]})
    assert cloud.run("tpu_sweep.sh", *OPTIONS, "--max_restarts", "0").returncode == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_waits_until_the_workers_have_saved(cloud, number, code, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang"], "2/2": ["hang"]})
    process = cloud.start("tpu_sweep.sh", *OPTIONS, "--num_slices", "2")
    wait_for(lambda: len(cloud.calls("gpicl")) == 2)
    out = cloud.stop(process, number)
    assert process.returncode == code
    assert out.count("stopped (exit code 42)") == 2 and len(cloud.calls("gpicl")) == 2
    assert not any(is_running(call["pid"]) for call in cloud.calls("gpicl"))


def test_workers_share_the_cores_out(cloud, wait_for):
    here = os.sched_getaffinity(0)
    for workers, runs in ((2, "two"), (1, "one"), (len(here) + 1, "more")):
        cloud.script("gpicl", **{f"{shard}/{workers}": ["hang"] for shard in range(1, workers + 1)})
        process = cloud.start("tpu_sweep.sh", *OPTIONS, "--num_slices", str(workers), "--workdir", runs)
        wait_for(lambda workers=workers: sum(shard.endswith(f"/{workers}") for shard in cores(cloud)) == workers)
        cloud.stop(process, signal.SIGTERM)
    found = cores(cloud)
    if not SHARED:
        assert len(found["1/2"]) == len(found["2/2"]) == len(here) // 2 and found["1/2"].isdisjoint(found["2/2"])
    assert found["1/1"] == found[f"1/{len(here) + 1}"] == here


def test_a_second_call_adopts_live_workers(cloud, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang"], "2/2": ["hang"]})
    first = cloud.start("tpu_sweep.sh", *OPTIONS, "--num_slices", "2")
    wait_for(lambda: len(cloud.calls("gpicl")) == 2)
    with first:  # closes the pipes
        first.kill()  # its workers live on
    pids = {call["shard"]: call["pid"] for call in cloud.calls("gpicl")}
    os.kill(pids["2/2"], signal.SIGKILL)
    # A process that was given the number of a dead worker later is not taken for it.
    (cloud.here / "runs/.launch/sweep-2.pid").write_text(f"{os.getpid()} 1\n")
    second = cloud.start("tpu_sweep.sh", *OPTIONS, "--num_slices", "2")
    wait_for(lambda: starts(cloud, "2/2") == 2)
    assert starts(cloud, "1/2") == 1 and (SHARED or cores(cloud)["1/2"].isdisjoint(cores(cloud)["2/2"]))
    assert (
        f"process {pids['1/2']}" in cloud.run("status.sh", "--name", "sweep", *OPTIONS[1:3], "--workdir", "runs").stdout
    )
    os.kill(pids["1/2"], signal.SIGTERM)
    out, err = second.communicate(timeout=600)
    assert second.returncode == 0, err
    assert f"sweep-1: adopted, process {pids['1/2']}" in out and starts(cloud, "1/2") == 2


def test_delete_stops_workers_and_waits_for_their_save(cloud, wait_for):
    cloud.script("gpicl", **{"1/1": ["hang"]})
    process = cloud.start("tpu_sweep.sh", *OPTIONS)
    wait_for(lambda: cloud.calls("gpicl"))
    with process:  # closes the pipes
        process.kill()
    where = ["--engine", "local", "--workdir", "runs"]
    result = cloud.run("delete.sh", "sweep", *where, "--yes")
    assert result.returncode == 0 and "sweep-1: stopped" in result.stdout
    assert not is_running(cloud.calls("gpicl")[0]["pid"])
    assert "no workers" in cloud.run("delete.sh", "sweep", *where, "--yes").stdout


def test_one_run_here(cloud):
    result = cloud.run("tpu_train.sh", *OPTIONS)
    assert result.returncode == 0 and [call["shard"] for call in cloud.calls("gpicl")] == ["train"]
