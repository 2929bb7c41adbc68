"""Slurm itself, on this machine: what is cancelled, killed or out of time ends like what is not."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import psutil
import pytest

from gpicl_flax.records.run_folder import RunFolder
from tests.launch import slurm_cluster

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(
        bool(slurm_cluster.MISSING),
        reason=f"{', '.join(slurm_cluster.MISSING)} not installed (Debian: slurm-wlm and munge)",
    ),
]
FAKES = pathlib.Path(__file__).parent / "fakes"
SWEEP = """
include 'gin/base.gin'
Run.model = @LSTM()
LSTM.hidden_size = 4
TaskDistribution.base_dataset = 'digits'
TaskDistribution.input_shape = (4, 4, 1)
TaskDistribution.sequence_length = 6
TaskDistribution.task_batch_size = 8
MetaTest.num_sequences = 20
MetaTest.base_datasets = ['digits']
Training.steps = 200
Training.steps_per_dispatch = 10
Training.checkpoint_period = 50
"""
GRIDS = "sweep.grids = [{'Run.seed': [0, 1, 2, 3]}]\n"
OPTIONS = ["--engine", "slurm", "--name", "sweep", "--workdir", "runs", "--package", "preinstalled"]
OPTIONS += ["--restart_seconds", "0"]


@pytest.fixture(scope="module")
def cluster(wait_for):
    """The cluster, shared by the tests here."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm"))
    made = slurm_cluster.Cluster(folder)
    try:
        wait_for(made.is_up, made.is_alive)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.fixture
def login(cloud, cluster, wait_for):
    """A login node: the launch scripts with Slurm, and a fake gpicl."""
    cloud.environment |= cluster.environment
    yield cloud
    cluster.cancel_all()
    wait_for(lambda: not cluster.states())


@pytest.fixture
def held(login, cluster):
    """The same with the real gpicl, whose runs stand still until they are told to save or `hold` is removed."""
    folder = login.folder / "held"
    folder.mkdir()
    (folder / "hold").touch()
    login.put_on_path("gpicl", f'exec {shlex.join([sys.executable, "-P", str(FAKES / "held_gpicl.py")])} "$@"')
    login.environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
    # Programs are compiled once for all tests here.
    login.environment["JAX_COMPILATION_CACHE_DIR"] = str(cluster.folder / "compiled")
    login.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    (login.here / "setup.sh").write_text(f"export HELD_GPICL={shlex.quote(str(folder))}\n")  # in jobs alone
    (login.here / "small.gin").write_text(SWEEP + GRIDS)
    (login.here / "one.gin").write_text(SWEEP)
    return folder


def runs(workdir):
    """What must not depend on where and how often a run was started: its end, metrics and evaluation."""
    return {
        path.parent.name: [
            RunFolder(path.parent).ended,
            (path.parent / "metrics.jsonl").read_bytes(),
            [p.read_bytes() for p in sorted((path.parent / "eval").glob("*.json"))],
        ]
        for path in workdir.glob("*/run.json")
    }


def submit(login, *more, command="sweep"):
    done = login.run(command, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def log(login, task):
    path = login.here / f"runs/.launch/sweep-{task}.log"
    return path.read_text() if path.exists() else ""


def has_ended(login, cluster, task):
    """Returns whether a task has left a result; fails where it is gone without one."""
    is_there = task in cluster.states()
    assert is_there or result(login, task), log(login, task)
    return bool(result(login, task))


def result(login, task):
    path = login.here / f"runs/.launch/sweep-{task}.result"
    return path.read_text() if path.exists() else ""


def shorten(cluster, job):
    """Gives a job a time limit that is two minutes away at most, of which Slurm tells it a minute before."""
    passed = cluster.call("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%M")  # [hours:]minutes:seconds
    minutes = sum(60**power * int(part) for power, part in enumerate(reversed(passed.split(":")[:-1])))
    cluster.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 2}")


def test_a_sweep_with_tasks_cancelled_killed_and_out_of_time(held, login, cluster, wait_for, tmp_path):
    given = ["small.gin", *OPTIONS, "--num_slices", "4", "--setup", "setup.sh", "--time", "1:00:00"]
    given += ["--grace_seconds", "60"]
    assert "submitted, shards 1-4" in submit(login, *given)
    pids = [held / f"{task}.0" for task in (1, 2, 3, 4)]
    wait_for(lambda: all(pid.exists() for pid in pids), lambda: len(cluster.states()) == 4)
    out_of_time, cancelled, gpicl, script = (int(pid.read_text()) for pid in pids)
    pids[2].unlink()

    shorten(cluster, cluster.job(1))
    cluster.call("scancel", cluster.job(2))
    os.kill(gpicl, signal.SIGKILL)
    psutil.Process(script).parent().kill()
    wait_for(lambda: not cluster.states().keys() & {2, 4})
    assert not psutil.pid_exists(cancelled) and not psutil.pid_exists(script)
    assert "told to stop (gpicl's exit code: 42)" in log(login, 2)  # it has saved
    wait_for(lambda: pids[2].exists(), lambda: 3 in cluster.states())  # it has begun again
    assert "failed with exit code 137" in log(login, 3) and int(pids[2].read_text()) != gpicl
    # Meanwhile, what must come out.
    words = ["sweep", "--gin_file", "small.gin", "--workdir", str(tmp_path / "undisturbed"), "--quiet"]
    undisturbed = subprocess.Popen(
        [sys.executable, "-m", "gpicl_flax", *words], cwd=login.here, env=login.environment, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: "the time is over, gpicl's exit code: 42; queued again" in log(login, 1))
    assert not psutil.pid_exists(out_of_time)

    second = submit(login, *given)
    assert "submitted, shards 2,4" in second and second.count("there already") == 2
    third = submit(login, *given)
    assert "submitted" not in third and third.count("there already") == 4
    status = login.run("status", *OPTIONS[:6])
    assert status.returncode == 0 and all(f"sweep-{task} " in status.stdout for task in (1, 2, 3, 4))

    (held / "hold").unlink()
    for task in (1, 2, 3, 4):
        wait_for(lambda task=task: has_ended(login, cluster, task))
        assert "exit_code=0" in result(login, task), log(login, task)
    assert submit(login, *given).count("done already") == 4
    assert undisturbed.wait() == 0
    found = runs(login.here / "runs")
    assert len(found) == 4 and found == runs(tmp_path / "undisturbed")


def test_one_run_on_two_nodes_that_comes_to_the_end_of_its_time(held, login, cluster, wait_for):
    given = ["one.gin", *OPTIONS, "--nodes", "2", "--setup", "setup.sh"]
    submit(login, *given, command="train")
    pids = [held / f"1.{process}" for process in (0, 1)]
    wait_for(lambda: all(pid.exists() for pid in pids), lambda: 1 in cluster.states())
    cluster.call("scancel", "--signal=USR1", "--batch", cluster.job(1))  # as Slurm does before the end
    wait_for(lambda: "queued again" in log(login, 1), lambda: 1 in cluster.states())
    assert "the time is over, gpicl's exit code: 42" in log(login, 1)
    (held / "hold").unlink()
    wait_for(lambda: has_ended(login, cluster, 1))
    assert "exit_code=0" in result(login, 1), log(login, 1)
    steps = [json.loads(line)["step"] for line in (login.here / "runs/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(10, 201, 10))  # one process writes


def test_a_task_whose_node_fails_is_queued_again(login, cluster, wait_for):
    login.script("gpicl", **{"1/1": ["hang"]})
    submit(login, "gin/state_size.gin", "--scale", "cpu", *OPTIONS)
    wait_for(lambda: login.calls("gpicl"), lambda: 1 in cluster.states())
    node = cluster.call("squeue", "--noheader", "--format=%N")
    cluster.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        wait_for(lambda: has_ended(login, cluster, 1))
    finally:
        cluster.resume(node)
    assert "exit_code=0" in result(login, 1) and len(login.calls("gpicl")) == 2
    wait_for(cluster.is_up)


def test_what_has_failed_is_submitted_again_and_delete_ends_the_rest(login, cluster, wait_for):
    login.script("gpicl", **{"1/2": [1, 1], "2/2": ["hang"]})
    given = ["gin/state_size.gin", "--scale", "cpu", *OPTIONS, "--num_slices", "2", "--max_restarts", "1"]
    submit(login, *given)
    wait_for(lambda: result(login, 1) and 1 not in cluster.states())
    assert "exit_code=1" in result(login, 1) and "why=failed 2 times in a row" in result(login, 1)
    assert "submitted, shards 1," in submit(login, *given)
    wait_for(lambda: "exit_code=0" in result(login, 1))
    other = login.run("sweep", *given, "--stack", "off")
    assert other.returncode == 2 and "was submitted with other arguments" in other.stderr
    where = ["--engine", "slurm", "--name", "sweep"]
    assert "sweep: cancelled" in login.run("delete", *where, "--yes").stdout
    wait_for(lambda: not cluster.states())
    assert "told to stop (gpicl's exit code: 42)" in log(login, 2)
    assert "no jobs of the name sweep" in login.run("delete", *where, "--yes").stdout


def test_a_job_ends_where_its_setup_fails(login, cluster, wait_for):
    submit(login, "gin/state_size.gin", "--scale", "cpu", *OPTIONS, "--setup", "module-of-nobody load 'a b'")
    wait_for(lambda: log(login, 1) and not cluster.states())
    assert "the commands of --setup failed" in log(login, 1) and not login.calls("gpicl")


def test_a_refusal_of_slurm_is_one_line(login):
    refused = login.run("sweep", "gin/state_size.gin", "--scale", "cpu", *OPTIONS, "--partition", "nobody")
    assert refused.returncode == 1 and refused.stderr.strip().count("\n") == 0
    assert "nothing was submitted: sbatch: error: Batch job submission failed: Invalid partition" in refused.stderr
