"""How the package reaches the hosts."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Stands for the python3 of a host: `pip install --target FOLDER uv` makes a uv that notes its calls, and whose
# environments hold the gpicl of these tests.
HOST_PYTHON = """
case "$*" in
  "-m pip install"*) ;;
  *) exec {python} "$@" ;;
esac
printf '%s\\n' "pip $*" >> {log}
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/bin"
cat > "$2/bin/uv" << 'END'
#!/bin/sh
printf 'uv %s\\n' "$*" >> {log}
for env in "$@"; do :; done
if [ "$1" = venv ]; then
  if [ -e {folder}/uv-fails ]; then rm {folder}/uv-fails; exit 1; fi
  mkdir -p "$env/bin"
  cp {folder}/bin/gpicl "$env/bin/gpicl"
fi
END
chmod +x "$2/bin/uv"
"""


@pytest.fixture
def uv_calls(cloud):
    log = cloud.folder / "uv.log"
    cloud.put_on_path("python3", HOST_PYTHON.format(python=sys.executable, log=log, folder=cloud.folder))
    return lambda: log.read_text().replace(str(cloud.folder / "gcloud/hosts"), "HOSTS").splitlines()


@pytest.fixture
def without_package(on_slices):
    at = on_slices.index("--package")
    return on_slices[:at] + on_slices[at + 2 :]


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
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package)
    assert result.returncode == 0, result.stderr
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
def test_a_mistake_in_a_gin_file_is_found_before_anything_is_made(cloud, without_package):
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", *without_package, "--gin_bindings", "Run.sed = 1")
    assert result.returncode == 2 and "sed" in result.stderr
    assert cloud.verbs("create") == [] and not cloud.bucket.exists()
