"""Hosts of a slice: the start-up script, with a gcloud and a gpicl that are made for tests."""

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.launch

GIN = "gin/state_size.gin"


@pytest.fixture
def script(cloud, on_slices):
    return cloud.startup_script(GIN, *on_slices, "--num_slices", "2", "--max_restarts", "2")


def result_of(cloud) -> dict[str, str]:
    lines = (cloud.bucket / "study/.launch/sweep-1.result").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def log_of(cloud, number=0) -> str:
    return (cloud.host_folder(number) / "sweep-1.log").read_text()


def take_away(process: subprocess.Popen) -> int:
    """Stops a host as its machine does, and returns the exit code of its script."""
    os.killpg(process.pid, signal.SIGTERM)
    return process.wait(600)


def test_a_shard_is_run_and_its_result_left_in_the_working_folder(cloud, script):
    assert cloud.boot(script).wait(600) == 0
    [call] = cloud.calls("gpicl")
    assert call["argv"] == ["sweep", "--gin_file", GIN, "--workdir", "gs://bucket/study", "--shard", "1/2"]
    assert call["environment"]["JAX_COMPILATION_CACHE_DIR"] == str(cloud.host_folder() / "compilation_cache")
    result = result_of(cloud)
    assert (result["exit_code"], result["why"]) == ("0", "done")
    assert f"DIGEST={result['digest']}\n" in script.read_text()
    assert "start 0 of shard 1/2" in (cloud.bucket / "study/.launch/sweep-1.host0.log").read_text()
    # Another boot finds that it has ended.
    assert cloud.boot(script).wait(600) == 0 and len(cloud.calls("gpicl")) == 1


def test_a_result_of_another_payload_does_not_end_it(cloud, script):
    marker = cloud.bucket / "study/.launch/sweep-1.result"
    marker.parent.mkdir(parents=True)
    marker.write_text("exit_code=0\ndigest=0123456789abcdef\n")
    assert cloud.boot(script).wait(600) == 0 and len(cloud.calls("gpicl")) == 1


def test_what_a_host_that_is_taken_away_has_compiled_is_on_the_next_one(cloud, script, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang", 0]})
    first = cloud.boot(script)
    wait_for(lambda: cloud.calls("gpicl"))
    assert take_away(first) == 143
    assert "told to stop (gpicl's exit code: 42)" in log_of(cloud)
    # Nothing was left that could be taken for a result, and all of the log.
    assert not (cloud.bucket / "study/.launch/sweep-1.result").exists()
    assert "told to stop" in (cloud.bucket / "study/.launch/sweep-1.host0.log").read_text()
    assert cloud.boot(script, number=1).wait(600) == 0
    assert [call["programs"] for call in cloud.calls("gpicl")] == [[], ["program-1-2.0"]]
    programs = cloud.bucket / "study/.launch/compilation_cache"
    assert sorted(path.name for path in programs.iterdir()) == ["program-1-2.0", "program-1-2.1"]


def test_the_same_slice_goes_on_after_another_boot(cloud, script, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang", 0]})
    first = cloud.boot(script)
    wait_for(lambda: cloud.calls("gpicl"))
    take_away(first)
    assert cloud.boot(script).wait(600) == 0 and len(cloud.calls("gpicl")) == 2


def test_a_second_copy_of_the_script_ends_at_once(cloud, script, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang"]})
    first = cloud.boot(script)
    wait_for(lambda: cloud.calls("gpicl"))
    assert cloud.boot(script).wait(600) == 0 and first.poll() is None
    assert "another copy of this script is running" in (cloud.host_folder() / "console").read_text()
    take_away(first)


@pytest.mark.parametrize(
    ("steps", "starts", "code", "why"),
    [
        ([42, 42, 42, 0], 4, "0", "done"),
        (["kill", 1, 0], 3, "0", "done"),
        ([2], 1, "2", "wrong usage"),
        ([1] * 9, 3, "1", "failed 3 times in a row"),
    ],
)
def test_gpicl_is_started_again_after_42_and_after_failures_but_not_after_2(cloud, script, steps, starts, code, why):
    cloud.script("gpicl", **{"1/2": steps})
    assert cloud.boot(script).wait(600) == int(code)
    assert len(cloud.calls("gpicl")) == starts
    assert (result_of(cloud)["exit_code"], result_of(cloud)["why"]) == (code, why)


def test_programs_that_cannot_be_copied_fail_nothing(cloud, script):
    (cloud.bucket / "study/.launch").mkdir(parents=True)
    (cloud.bucket / "study/.launch/compilation_cache").write_text("no folder")
    assert cloud.boot(script).wait(600) == 0
    assert (cloud.bucket / "study/.launch/compilation_cache").read_text() == "no folder"


def test_a_folder_for_programs_that_the_environment_names_is_used(cloud, script):
    programs = cloud.folder / "kept"
    assert cloud.boot(script, JAX_COMPILATION_CACHE_DIR=str(programs)).wait(600) == 0
    assert [path.name for path in programs.iterdir()] == ["program-1-2.0"]
    assert not (cloud.bucket / "study/.launch/compilation_cache").exists()


def test_hosts_end_what_holds_the_chips(cloud, script):
    device = cloud.folder / "gcloud/dev/accel0"
    device.parent.mkdir()
    device.touch()
    lock = cloud.folder / "gcloud/libtpu_lockfile"
    lock.touch()
    with open(device) as held:
        orphan = subprocess.Popen(["sleep", "3600"], stdin=held)
    try:
        assert cloud.boot(script).wait(600) == 0
        assert orphan.wait(timeout=600) == -signal.SIGKILL and not lock.exists()
    finally:
        orphan.kill()


def test_all_hosts_of_a_slice_run_the_same_shard_and_host_0_tells(cloud, script):
    hosts = [cloud.boot(script, host=host, JAX_PROCESS_ID=str(host)) for host in range(4)]
    assert [process.wait(600) for process in hosts] == [0] * 4
    calls = cloud.calls("gpicl")
    assert sorted(call["environment"]["JAX_PROCESS_ID"] for call in calls) == ["0", "1", "2", "3"]
    assert len({tuple(call["argv"]) for call in calls}) == 1
    there = {path.name for path in (cloud.bucket / "study/.launch").iterdir() if path.is_file()}
    assert there == {"sweep-1.result", *(f"sweep-1.host{host}.log" for host in range(4))}


def test_a_working_folder_that_all_hosts_mount(cloud, on_slices):
    workdir = cloud.folder / "my 'mount'"
    script = cloud.startup_script(GIN, *on_slices, "--workdir", str(workdir), "--coordinator_port", "8476")
    assert cloud.boot(script).wait(600) == 0
    [call] = cloud.calls("gpicl")
    assert call["environment"]["JAX_COORDINATOR_PORT"] == "8476"
    assert "exit_code=0\n" in (workdir / ".launch/sweep-1.result").read_text()
    assert [path.name for path in (workdir / ".launch/compilation_cache").iterdir()] == ["program-1-1.0"]


def test_hosts_install_the_pinned_requirement_once(cloud, without_package, uv_calls, wait_for):
    cloud.script("gpicl", **{"1/1": ["hang", 0]})
    requirement = "gpicl_flax[tpu]==1.0 $(touch pwned)"
    script = cloud.startup_script("gin/sgd.gin", *without_package, "--package", requirement)
    first = cloud.boot(script)
    wait_for(lambda: cloud.calls("gpicl"))
    take_away(first)
    assert cloud.boot(script).wait(600) == 0
    pip, venv, install = uv_calls()  # and no more at the second boot
    home = "HOSTS/sweep-1.0/0"
    assert pip.startswith(f"pip -m pip install --quiet --upgrade --target {home}/uv uv==")
    assert venv == f"uv venv --quiet --clear --python 3.12 {home}/env"
    assert install == f"uv pip install --quiet --python {home}/env/bin/python {requirement}"
    assert not list(cloud.folder.rglob("pwned"))


def do_not_sleep(cloud):
    cloud.put_on_path("sleep", 'case "$1" in 0.*|300) exec /bin/sleep "$1" ;; *) exec /bin/sleep 0 ;; esac')


def test_a_host_that_cannot_install_says_so_in_the_result(cloud, without_package):
    cloud.put_on_path("python3", "echo no network; exit 1")
    do_not_sleep(cloud)
    script = cloud.startup_script("gin/sgd.gin", *without_package, "--package", "gpicl_flax[tpu]==1.0")
    assert cloud.boot(script).wait(600) == 1
    assert result_of(cloud)["why"] == "the package could not be installed" and "no network" in log_of(cloud)


@pytest.fixture
def preparing(cloud, on_slices):
    """A script whose hosts prepare mnist, and copy fashion_mnist, with the gpicl that is there."""
    (cloud.bucket / "study/.launch/data/fashion_mnist/3.0.1").mkdir(parents=True)
    (cloud.bucket / "study/.launch/data/fashion_mnist/3.0.1/info").write_text("examples")
    script = cloud.startup_script(GIN, *on_slices)
    text = script.read_text()
    assert "\nDATASETS=(\n)\nPREPARED=(\n)\n" in text
    script.write_text(
        text.replace("DATASETS=(\n)\nPREPARED=(\n)", "DATASETS=(\nfashion_mnist\n)\nPREPARED=(\nmnist\n)")
    )
    return script


def preparations(cloud) -> int:
    return sum(call["argv"][:2] == ["datasets", "prepare"] for call in cloud.calls("gpicl"))


def test_host_0_prepares_what_is_missing_once_and_the_others_copy_it(cloud, preparing, wait_for):
    do_not_sleep(cloud)
    others = [cloud.boot(preparing, host=host) for host in (1, 2)]
    wait_for(lambda: all((cloud.host_folder(host=host) / "sweep-1.log").exists() for host in (1, 2)))
    assert cloud.calls("gpicl") == []  # they wait
    hosts = [cloud.boot(preparing), *others]
    assert [process.wait(600) for process in hosts] == [0] * 3
    assert preparations(cloud) == 1
    for host in range(3):
        data = cloud.host_folder(host=host) / "data"
        assert (data / "mnist/3.0.1/info").read_text() == "prepared"
        assert (data / "fashion_mnist/3.0.1/info").read_text() == "examples"
    runs = [call for call in cloud.calls("gpicl") if call["argv"][0] == "sweep"]
    assert sorted(call["environment"]["TFDS_DATA_DIR"] for call in runs) == [
        str(cloud.host_folder(host=host) / "data") for host in range(3)
    ]
    # Another slice finds it in the working folder.
    (cloud.bucket / "study/.launch/sweep-1.result").unlink()
    assert cloud.boot(preparing, number=1).wait(600) == 0 and preparations(cloud) == 1


def test_a_preparation_that_fails_is_tried_again_and_then_said_in_the_result(cloud, preparing):
    do_not_sleep(cloud)
    cloud.script("gpicl", prepare=[1, 1, 1, 1])
    assert cloud.boot(preparing).wait(600) == 1
    assert "base datasets could not be prepared" in result_of(cloud)["why"]
    assert not (cloud.bucket / "study/.launch/data/mnist.prepared").exists()
    (cloud.bucket / "study/.launch/sweep-1.result").unlink()
    assert cloud.boot(preparing).wait(600) == 0 and preparations(cloud) == 5  # nothing half is taken for prepared
