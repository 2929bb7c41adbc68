"""Launches with the real gpicl: what is interrupted ends like what is not."""

import json
import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gpicl_flax.records.run_folder import RunFolder

pytestmark = pytest.mark.launch

ROOT = pathlib.Path(__file__).parents[2]

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
Training.steps = 2000
Training.checkpoint_period = 100
"""
SETTINGS = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
GRIDS = "sweep.grids = [{'Run.seed': [0, 1, 2, 3]}]\n"


TINY = """
TaskDistribution.base_dataset = 'tiny'
MetaTest.base_datasets = ['tiny', 'digits']
Training.steps = 20
"""


@pytest.fixture
def real(cloud, tmp_path_factory):
    """The fakes, but for gpicl."""
    cloud.put_on_path("gpicl", f'exec {shlex.quote(sys.executable)} -m gpicl_flax "$@"')
    cloud.environment |= SETTINGS
    # Programs are compiled once for all tests here.
    cloud.environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "compiled")
    (cloud.here / "small.gin").write_text(SWEEP + GRIDS)
    (cloud.here / "one.gin").write_text(SWEEP)
    (cloud.here / "tiny.gin").write_text(SWEEP + TINY)
    return cloud


def runs(workdir: pathlib.Path) -> dict:
    """What must not depend on where and how often a run was started: its end, metrics and evaluation."""
    folders = [path.parent for path in workdir.glob("*/run.json")]
    return {
        path.name: [
            RunFolder(path).ended,
            (path / "metrics.jsonl").read_bytes(),
            [p.read_bytes() for p in sorted((path / "eval").glob("*.json"))],
        ]
        for path in folders
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """The runs of small.gin as `gpicl sweep` makes them, which nothing interrupts."""
    here = tmp_path_factory.mktemp("undisturbed")
    (here / "small.gin").write_text(SWEEP + GRIDS)
    command = [sys.executable, "-m", "gpicl_flax", "sweep", "--gin_file", "small.gin", "--workdir", "runs"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    subprocess.run(
        command,
        cwd=here,
        env=kept | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | SETTINGS,
        check=True,
        capture_output=True,
    )
    return runs(here / "runs")


def rows(workdir: pathlib.Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in workdir.glob("*/metrics.jsonl"))


def wait_for(condition, process, seconds=1200):
    until = time.time() + seconds
    while not condition():
        if time.time() > until or process.poll() is not None:
            process.kill()
            pytest.fail(f"ended, or waited in vain: {process.communicate()}")
        time.sleep(0.05)


def options(workdir) -> list[str]:
    return [
        *("--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16", "--name", "sweep"),
        *("--workdir", str(workdir), "--package", "preinstalled", "--poll_seconds", "0.2", "--restart_seconds", "0"),
    ]


def test_a_sweep_on_slices_of_which_one_is_preempted(real, undisturbed):
    workdir = real.folder / "mounted"
    real.script("gcloud", states={"sweep-1": [["ACTIVE", "SUSPENDED?"], ["ACTIVE"]]})
    process = real.start("sweep", "small.gin", *options(workdir), "--num_slices", "2")
    wait_for(lambda: rows(workdir) > 0, process)
    (real.folder / "gcloud/preempt-sweep-1").touch()
    out, err = process.communicate(timeout=4000)
    assert process.returncode == 0, out + err
    assert "sweep-1: is SUSPENDED" in out and "2 of 2 shards done" in out and not real.slices
    first = (real.folder / "gcloud/hosts/sweep-1.0/0/sweep-1.log").read_text()
    assert "told to stop (gpicl's exit code: 42)" in first  # it has saved
    assert len(runs(workdir)) == 4 and runs(workdir) == undisturbed


def test_a_sweep_here_whose_workers_are_killed(real, undisturbed):
    workdir = real.here / "runs"
    arguments = ["--engine", "local", "--package", "preinstalled", "--num_slices", "2", "--workdir", "runs"]
    process = real.start("sweep", "small.gin", *arguments, "--name", "sweep", "--poll_seconds", "0.2")
    generator, killed, before = random.Random(0), "", 0

    def workers():
        return sorted(path.read_text() for path in (workdir / ".launch").glob("sweep-*.pid"))

    def works():
        return workdir.exists() and rows(workdir) > before and killed not in workers() and all(workers())

    for _ in range(2):
        wait_for(works, process)  # with a new worker in the place of the killed one
        killed = generator.choice(workers())
        os.kill(int(killed.split()[0]), signal.SIGKILL)
        before = rows(workdir)
    out, err = process.communicate(timeout=4000)
    assert process.returncode == 0, out + err
    assert out.count("killed by signal 9; starting again") == 2
    assert len(runs(workdir)) == 4 and runs(workdir) == undisturbed


def test_one_run_on_the_two_hosts_of_a_slice(real):
    workdir = real.folder / "mounted" / "run"
    real.script("gcloud", hosts=2)
    result = real.run("train", "one.gin", *options(workdir), "--gin_bindings", "Training.steps = 400")
    assert result.returncode == 0, result.stdout + result.stderr
    assert RunFolder(workdir).ended == "DONE"
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 400  # one process writes


def test_a_sweep_on_gs_of_which_one_slice_is_preempted(real, gcs, undisturbed):
    """Hosts and gcloud use the storage server; each host keeps compiled programs on its own disk."""
    real.environment |= gcs.environment
    real.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    del real.environment["JAX_COMPILATION_CACHE_DIR"]
    real.script("gcloud", states={"sweep-1": [["ACTIVE", "SUSPENDED?"], ["ACTIVE"]]})
    process = real.start("sweep", "small.gin", *options("gs://bucket/study"), "--num_slices", "2")
    wait_for(lambda: any(name.endswith("/metrics.jsonl") for name in gcs.objects("bucket", "study/")), process)
    (real.folder / "gcloud/preempt-sweep-1").touch()
    out, err = process.communicate(timeout=4000)
    assert process.returncode == 0, out + err
    assert "sweep-1: is SUSPENDED" in out and "2 of 2 shards done" in out and not real.slices
    first = (real.folder / "gcloud/hosts/sweep-1.0/0/sweep-1.log").read_text()
    assert "told to stop (gpicl's exit code: 42)" in first  # it has saved
    copied = real.folder / "copied"
    for name, data in gcs.objects("bucket", "study/").items():
        path = copied / name.removeprefix("study/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert len(runs(copied)) == 4 and runs(copied) == undisturbed
    hosts = real.folder / "gcloud/hosts"
    folders = [hosts / "sweep-1.0/0/compilation_cache", copied / ".launch/compilation_cache"]
    folders.append(hosts / "sweep-1.1/0/compilation_cache")
    first, stored, second = ({path.name for path in folder.iterdir()} for folder in folders)
    assert first and first <= stored and first <= second
    by_gpicl = [record for record in gcs.requests() if record["client"] != "gcloud"]
    assert by_gpicl and not [record for record in by_gpicl if "compilation_cache" in record["name"]]


def test_a_dataset_that_was_imported_here_reaches_a_slice(real, without_package, uv_calls):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 200), ("test", 100)):
        arrays[f"{split}_images"] = rng.integers(256, size=(size, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.permutation(np.arange(size) % 10)
    np.savez(real.folder / "tiny.npz", **arrays)
    data = real.folder / "my 'data'"
    command = ["datasets", "import", "tiny", "--images", str(real.folder / "tiny.npz"), "--data_dir", str(data)]
    subprocess.run([sys.executable, "-m", "gpicl_flax", *command], check=True, capture_output=True)
    workdir = real.folder / "mounted" / "run"
    where = ["--workdir", str(workdir), "--poll_seconds", "0.2"]
    result = real.run("train", "tiny.gin", *without_package, *where, TFDS_DATA_DIR=str(data))
    assert result.returncode == 0, result.stdout + result.stderr
    assert RunFolder(workdir).ended == "DONE"
    assert {curve["base_dataset"] for curve in RunFolder(workdir).latest_evaluation()["curves"]} == {"tiny", "digits"}
    # From the working folder to the host, which has another home and another TFDS_DATA_DIR.
    for folder in (workdir / ".launch/data", real.folder / "gcloud/hosts/sweep-1.0/0/data"):
        assert [path.name for path in folder.iterdir()] == ["tiny"]
