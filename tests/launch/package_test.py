"""How the package and the base datasets reach the hosts."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from gpicl_flax.launch.system import Answer
from tests.launch.prepared import pretend_prepared

ROOT = pathlib.Path(__file__).parents[2]
GIN = "gin/sgd.gin"


@pytest.fixture
def sweep(run, without_package, prepared):
    return lambda *more: run("sweep", GIN, *without_package, "--data_dir", str(prepared), *more)


def test_the_wheel_and_the_datasets_that_the_points_read_are_brought_once(sweep, machine, prepared):
    pretend_prepared(prepared, "kmnist")  # no point reads it
    result = sweep()
    assert result.code == 0, result.err
    data = machine.bucket / "study/.launch/data"
    infos = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert infos == {f"{name}/3.0.1/dataset_info.json" for name in ("mnist", "fashion_mnist")}
    [wheel] = machine.bucket.glob("study/.launch/package/*/gpicl_flax-*.whl")
    assert (wheel.parent / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()
    [script] = machine.gcloud.scripts["sweep-1"]
    assert f"\nWHEEL=gs://bucket/study/.launch/package/{wheel.parent.name}/{wheel.name}\n" in script
    assert "\nDATASETS=(\n  mnist\n  fashion_mnist\n)\nPREPARED=(\n)\n" in script
    # Nothing is built again where nothing has changed.
    assert sweep("--gin_bindings", "Run.seed = 1").code == 0
    assert sum("wheel" in words for words in machine.calls) == 1


def test_datasets_that_are_in_a_mounted_folder_already_are_not_written_again(run, machine, without_package, prepared):
    mounted = ["--workdir", str(machine.folder / "mounted"), "--data_dir", str(prepared)]
    assert run("sweep", GIN, *without_package, *mounted).code == 0
    copies = [words for words in machine.calls if words[:2] == ["cp", "-R"] and "tfds" in words[3]]
    assert len(copies) == 2 and (machine.folder / "mounted/.launch/data/mnist/3.0.1/dataset_info.json").exists()
    machine.calls.clear()
    more = ["--gin_bindings", "Run.seed = 1"]
    assert run("sweep", GIN, *without_package, *mounted, *more).code == 0
    assert not [words for words in machine.calls if words[:2] == ["cp", "-R"] and "tfds" in words[3]]


def test_a_folder_that_gcloud_would_take_for_a_pattern_is_refused(run, machine, without_package, prepared):
    folder = prepared.rename(prepared.with_name("data[1]"))
    result = run("sweep", GIN, *without_package, "--data_dir", str(folder))
    assert result.code == 2 and "must be a path without * ? [ ] and #" in result.err and machine.calls == []


@pytest.mark.parametrize(
    ("words", "why"),
    [("wheel", "the package could not be built"), ("rsync", "could not be copied to gs://bucket")],
)
def test_what_cannot_be_brought_is_told_before_a_slice_is_requested(sweep, machine, words, why):
    answer = machine.call
    machine.call = lambda given: Answer(1, "", "error: no space") if words in given else answer(given)
    result = sweep()
    assert result.code == 1 and why in result.err and "no space" in result.err
    assert machine.gcloud.verbs("create") == []


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("Run.sed = 1", "sed"),
        ("Run.seed = 1", "gpicl datasets prepare mnist"),
        ("TaskDistribution.base_dataset = './mine.npz'", "gpicl datasets import"),
    ],
)
def test_mistakes_and_missing_data_are_found_before_anything_is_made(run, machine, without_package, binding, words):
    empty = machine.folder / "empty"
    empty.mkdir()
    where = ["--data_dir", str(empty), "--gin_bindings", binding]
    result = run("sweep", GIN, *without_package, *where)
    assert result.code == 2 and words in result.err and len(result.err.strip().splitlines()) == 1
    assert machine.calls == [] and not machine.bucket.exists()


def test_a_dry_run_tells_what_is_not_prepared_and_hosts_may_prepare_it(run, machine, without_package, prepared):
    shutil.rmtree(prepared / "mnist")
    where = ["--data_dir", str(prepared)]
    dry = run("sweep", GIN, *without_package, *where, "--dry_run")
    assert dry.code == 0 and dry.err.strip() == ""
    assert "# Base datasets that the runs read, prepared here: fashion_mnist" in dry.out
    assert "# A real run ends here: base datasets that are not prepared here: mnist; " in dry.out
    assert "gpicl datasets prepare mnist" in dry.out and "queued-resources create sweep-1" in dry.out
    assert "\nPREPARED=(\n)\n" in dry.out and machine.calls == []
    dry = run("sweep", GIN, *without_package, *where, "--dry_run", "--prepare_on_hosts")
    assert dry.code == 0 and "# Base datasets that the hosts prepare: mnist" in dry.out
    assert run("sweep", GIN, *without_package, *where, "--prepare_on_hosts").code == 0
    [script] = machine.gcloud.scripts["sweep-1"]
    assert "\nDATASETS=(\n  fashion_mnist\n)\nPREPARED=(\n  mnist\n)\n" in script
    # Once it is prepared here as well, the same command is still the same launch.
    pretend_prepared(prepared, "mnist")
    again = run("sweep", GIN, *without_package, *where, "--prepare_on_hosts")
    assert again.code == 0 and "done already" in again.out


@pytest.mark.launch
def test_the_wheel_of_this_checkout_is_built_uploaded_and_installed(cloud, without_package, uv_calls, prepared):
    cloud.environment["TFDS_DATA_DIR"] = str(prepared)
    result = cloud.run("sweep", "gin/sgd.gin", *without_package, "--poll_seconds", "0.1")
    assert result.returncode == 0, result.stderr
    data = cloud.host_folder() / "data"
    infos = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert infos == {f"{name}/3.0.1/dataset_info.json" for name in ("mnist", "fashion_mnist")}
    [call] = cloud.calls("gpicl")
    assert call["environment"]["TFDS_DATA_DIR"] == str(data)
    [wheel] = cloud.bucket.glob("study/.launch/package/*/gpicl_flax-*.whl")
    *_, install = uv_calls()
    folder = "HOSTS/sweep-1.0/0/package"
    assert install.endswith(f"--constraint {folder}/constraints.txt gpicl_flax[tpu] @ file://{folder}/{wheel.name}")
    unpacked = cloud.folder / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    for name in ("host.sh", "jobset.yaml", "kueue.yaml"):
        assert (unpacked / "gpicl_flax/launch" / name).read_text() == (ROOT / "gpicl_flax/launch" / name).read_text()
    # It launches from anywhere, too.
    check = subprocess.run(
        [
            sys.executable,
            "-m",
            "gpicl_flax",
            "launch",
            "sweep",
            "gin/sgd.gin",
            *without_package,
            "--package",
            "preinstalled",
        ]
        + ["--dry_run"],
        cwd=cloud.here,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "queued-resources create sweep-1" in check.stdout and "  gin/sgd.gin\n" in check.stdout
