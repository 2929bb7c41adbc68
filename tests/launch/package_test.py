"""How the package reaches the hosts."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def test_hosts_install_the_pinned_requirement_once(cloud, without_package, uv_calls):
    cloud.script("gcloud", states={"sweep-1": [["ACTIVE", "REBOOT?", "ACTIVE"]]})
    cloud.script("gpicl", **{"1/1": ["preempt", 0]})
    requirement = "gpicl_flax[tpu]==1.0 $(touch pwned)"
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package, "--package", requirement)
    assert result.returncode == 0, result.stderr
    pip, venv, install = uv_calls()  # and no more after the reboot
    home = "HOSTS/sweep-1.0/0"
    assert pip.startswith(f"pip -m pip install --quiet --upgrade --target {home}/uv uv==")
    assert venv == f"uv venv --quiet --clear --python 3.12 {home}/env"
    assert install == f"uv pip install --quiet --python {home}/env/bin/python {requirement}"
    assert not list(cloud.folder.rglob("pwned"))


def test_a_host_that_cannot_install_says_so_in_the_result(cloud, without_package):
    cloud.put_on_path("python3", "echo no network; exit 1")
    cloud.put_on_path("sleep", 'case "$1" in 0.*) exec /bin/sleep "$1" ;; *) exec /bin/sleep 0 ;; esac')
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package, "--package", "gpicl_flax[tpu]==1.0")
    assert result.returncode == 1 and "the package could not be installed" in result.stderr
    assert "no network" in result.stdout and not cloud.slices


@pytest.mark.launch
def test_the_wheel_of_this_checkout_is_built_uploaded_and_installed(cloud, without_package, uv_calls):
    cloud.pretend_prepared(cloud.folder / "tfds", "mnist", "fashion_mnist", "kmnist")
    cloud.environment["TFDS_DATA_DIR"] = str(cloud.folder / "tfds")
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package)
    assert result.returncode == 0, result.stderr
    # The datasets that the points read, and no others, are in the bucket and on the host.
    for place in (cloud.bucket / "study/.launch/data", host := cloud.folder / "gcloud/hosts/sweep-1.0/0/data"):
        infos = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        assert infos == {f"{name}/3.0.1/dataset_info.json" for name in ("mnist", "fashion_mnist")}
    [call] = cloud.calls("gpicl")
    assert call["environment"]["TFDS_DATA_DIR"] == str(host)
    [wheel] = cloud.bucket.glob("study/.launch/package/*/gpicl_flax-*.whl")
    assert (wheel.parent / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()
    *_, install = uv_calls()
    assert install.endswith(
        f"--constraint HOSTS/sweep-1.0/0/package/constraints.txt gpicl_flax[tpu] @ file://HOSTS/sweep-1.0/0/package/{wheel.name}"
    )
    unpacked = cloud.folder / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    check = subprocess.run(
        [sys.executable, "-m", "gpicl_flax", "sweep", "--gin_file", "gin/sgd.gin", "--list"],
        cwd=cloud.here,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "points" in check.stdout
    # Nothing is built again where nothing has changed.
    [built] = cloud.folder.glob("home/.cache/gpicl_flax/launch/sweep/package/*/*.whl")
    before = built.stat().st_mtime_ns
    assert cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package, "--gin_bindings", "Run.seed = 1").returncode == 0
    assert built.stat().st_mtime_ns == before


@pytest.mark.launch
@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("Run.sed = 1", "sed"),
        ("Run.seed = 1", "gpicl datasets prepare mnist"),
        ("TaskDistribution.base_dataset = './mine.npz'", "gpicl datasets import"),
    ],
)
def test_mistakes_and_missing_data_are_found_before_anything_is_made(cloud, without_package, binding, words):
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package, "--gin_bindings", binding)
    assert result.returncode == 2 and words in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert cloud.calls("gcloud") == [] and not cloud.bucket.exists()
