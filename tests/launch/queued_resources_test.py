"""launch/tpu_sweep.sh against a gcloud that runs the start-up scripts here."""

import os
import signal
import subprocess

import pytest

GIN = "gin/state_size.gin"


def sweep(cloud, on_slices, *more, **environment):
    return cloud.run("tpu_sweep.sh", GIN, *on_slices, *more, **environment)


def test_every_shard_gets_a_slice_that_is_deleted_when_it_has_ended(cloud, on_slices):
    result = sweep(cloud, on_slices, "--num_slices", "2", "--spot")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs("create") == sorted(cloud.verbs("delete")) == ["sweep-1", "sweep-2"] and not cloud.slices
    assert [call["shard"] for call in sorted(cloud.calls("gpicl"), key=lambda call: call["shard"])] == ["1/2", "2/2"]
    create = next(call for call in cloud.calls("gcloud") if "create" in call)
    assert "--node-id=sweep-1" in create and "--spot" in create and "--runtime-version=v2-alpha-tpuv5-lite" in create
    call = cloud.calls("gpicl")[0]
    assert call["argv"][:5] == ["sweep", "--gin_file", GIN, "--workdir", "gs://bucket/study"]
    assert call["environment"]["JAX_COMPILATION_CACHE_DIR"] == f"{call['cwd'].removesuffix('/files')}/compilation_cache"
    marker = (cloud.bucket / "study/.launch/sweep-1.result").read_text()
    assert "exit_code=0\n" in marker and "digest=" in marker
    assert "start 0 of shard 1/2" in (cloud.bucket / "study/.launch/sweep-1.host0.log").read_text()
    said = [line.partition(" ")[2] for line in result.stdout.splitlines()]  # less the time
    assert [line for line in said if "sweep-1" in line] == [
        "sweep-1: requested",
        "sweep-1: WAITING_FOR_RESOURCES",
        "sweep-1: ACTIVE",
        "sweep-1: done",
    ]
    assert said[-1] == "2 of 2 shards done"


def test_a_second_call_submits_nothing(cloud, on_slices):
    assert sweep(cloud, on_slices).returncode == 0
    before = len(cloud.calls("gpicl"))
    result = sweep(cloud, on_slices)
    assert result.returncode == 0 and "done already" in result.stdout
    assert cloud.verbs("create") == ["sweep-1"] and len(cloud.calls("gpicl")) == before
    # Another payload is not done.
    assert sweep(cloud, on_slices, "--gin_bindings", "Training.steps = 7").returncode == 0
    assert cloud.verbs("create") == ["sweep-1", "sweep-1"]


def test_a_slice_that_never_comes_is_given_up_and_deleted(cloud, on_slices):
    cloud.script("gcloud", states={"sweep-1": [["ACCEPTED", "WAITING_FOR_RESOURCES"]]})
    result = sweep(cloud, on_slices, "--wait_seconds", "1")
    assert result.returncode == 1 and "not ACTIVE within 1 seconds" in result.stderr
    assert cloud.verbs("delete") == ["sweep-1"] and not cloud.slices
    assert not any("ssh" in call for call in cloud.calls("gcloud")) and cloud.calls("gpicl") == []


@pytest.mark.parametrize("state", ["SUSPENDED", "NONE", pytest.param("FAILED", marks=pytest.mark.launch)])
def test_a_slice_that_is_lost_is_made_anew(cloud, on_slices, state):
    cloud.script("gcloud", states={"sweep-1": [["WAITING_FOR_RESOURCES", state], ["PROVISIONING", "ACTIVE"]]})
    result = sweep(cloud, on_slices)
    assert result.returncode == 0, result.stderr
    assert cloud.verbs("create") == ["sweep-1", "sweep-1"] and not cloud.slices
    assert cloud.verbs("delete") == (["sweep-1"] if state == "NONE" else ["sweep-1", "sweep-1"])
    assert "trying again (1 of at most 10 times in a row)" in result.stdout


@pytest.mark.launch
def test_a_slice_that_is_lost_too_often_fails_its_shard_alone(cloud, on_slices):
    cloud.script("gcloud", states={"sweep-1": [["FAILED"]]})
    result = sweep(cloud, on_slices, "--num_slices", "2", "--max_restarts", "2")
    assert result.returncode == 1 and "sweep-1: is FAILED; lost 3 times in a row (--max_restarts 2)" in result.stderr
    assert cloud.verbs("create").count("sweep-1") == 3 and not cloud.slices
    assert "sweep-2: done" in result.stdout and "1 of 2 shards done" in result.stdout


def test_a_preempted_run_goes_on_on_a_new_slice(cloud, on_slices):
    cloud.script("gcloud", states={"sweep-1": [["ACTIVE", "SUSPENDED?"], ["ACTIVE"]]})
    cloud.script("gpicl", **{"1/1": ["preempt", 0]})
    result = sweep(cloud, on_slices)
    assert result.returncode == 0, result.stderr
    assert cloud.verbs("create") == ["sweep-1", "sweep-1"] and len(cloud.calls("gpicl")) == 2
    first = next((cloud.folder / "gcloud/hosts/sweep-1.0/0").glob("*.log")).read_text()
    assert "told to stop (gpicl's exit code: 42)" in first
    # What the first slice compiled is on the second one's disk before gpicl starts.
    assert [call["programs"] for call in cloud.calls("gpicl")] == [[], ["program-1-1.0"]]
    programs = cloud.bucket / "study/.launch/compilation_cache"
    assert sorted(path.name for path in programs.iterdir()) == ["program-1-1.0", "program-1-1.1"]
    # Nothing was left at the first slice's end that could be taken for a result.
    assert "exit_code=0" in (cloud.bucket / "study/.launch/sweep-1.result").read_text()


def test_programs_that_cannot_be_copied_fail_nothing(cloud, on_slices):
    (cloud.bucket / "study/.launch").mkdir(parents=True)
    (cloud.bucket / "study/.launch/compilation_cache").write_text("no folder")
    result = sweep(cloud, on_slices)
    assert result.returncode == 0, result.stderr
    assert (cloud.bucket / "study/.launch/compilation_cache").read_text() == "no folder"


@pytest.mark.launch
def test_the_startup_script_goes_on_after_a_reschedule_of_the_same_slice(cloud, on_slices):
    cloud.script("gcloud", states={"sweep-1": [["ACTIVE", "REBOOT?", "ACTIVE"]]})
    cloud.script("gpicl", **{"1/1": ["preempt", 0]})
    assert sweep(cloud, on_slices).returncode == 0
    assert cloud.verbs("create") == ["sweep-1"] and len(cloud.calls("gpicl")) == 2


@pytest.mark.launch
def test_gpicl_is_started_again_after_42_and_after_failures_but_not_after_2(cloud, on_slices):
    cloud.script("gpicl", **{"1/4": [42, 42, 42, 0], "2/4": ["kill", 1, 0], "3/4": [2], "4/4": [1] * 9})
    result = sweep(cloud, on_slices, "--num_slices", "4", "--max_restarts", "2")
    assert result.returncode == 1
    starts = [call["shard"] for call in cloud.calls("gpicl")]
    assert [starts.count(f"{i}/4") for i in (1, 2, 3, 4)] == [4, 3, 1, 3]
    assert "sweep-3: gpicl ended with exit code 2: wrong usage" in result.stderr
    assert "sweep-4: gpicl ended with exit code 1: failed 3 times in a row" in result.stderr
    assert "start 2 of shard 4/4: 1" in result.stdout  # the end of the log
    assert "2 of 4 shards done" in result.stdout and not cloud.slices
    # What failed is tried again by the next call, what is done is not.
    again = sweep(cloud, on_slices, "--num_slices", "4", "--max_restarts", "2")
    assert again.returncode == 1 and cloud.verbs("create")[4:] == ["sweep-3", "sweep-4"]


def test_create_says_already_exists(cloud, on_slices, wait_for):
    """As when another call of the script was faster, or a first answer was lost on the way."""
    assert sweep(cloud, on_slices, "--keep").returncode == 0 and cloud.slices == {"sweep-1"}
    (cloud.bucket / "study/.launch/sweep-1.result").unlink()
    looks = [None] * len(cloud.verbs("describe"))
    cloud.script("gcloud", errors={"describe": [*looks, "NOT_FOUND: no", "NOT_FOUND: no"]})
    process = cloud.start("tpu_sweep.sh", GIN, *on_slices)
    wait_for(lambda: len(cloud.verbs("create")) == 2)
    marker = (cloud.folder / "gcloud/hosts/sweep-1.0/0/sweep-1.result").read_text()
    (cloud.bucket / "study/.launch/sweep-1.result").write_text(marker)  # the slice that is there ends
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "sweep-1: there already" in out and not cloud.slices


@pytest.mark.launch
def test_errors_of_gcloud_that_pass_are_not_taken_for_a_lost_slice(cloud, on_slices):
    down = "UNAVAILABLE: The service is currently unavailable"
    cloud.script("gcloud", errors={"describe": [down, None, None, down, down], "delete": [down]})
    result = sweep(cloud, on_slices)
    assert result.returncode == 0, result.stderr
    assert cloud.verbs("create") == ["sweep-1"] and cloud.verbs("delete") == ["sweep-1"] * 2 and not cloud.slices
    assert "UNAVAILABLE" in result.stderr


def test_a_request_that_can_never_work_fails_at_once(cloud, on_slices):
    cloud.script("gcloud", errors={"create": ["PERMISSION_DENIED: Permission 'tpu.nodes.create' denied"]})
    result = sweep(cloud, on_slices)
    assert result.returncode == 1 and "tpu.nodes.create" in result.stderr and cloud.verbs("create") == ["sweep-1"]


def test_a_request_beyond_the_quota_is_tried_again(cloud, on_slices):
    cloud.script("gcloud", errors={"create": ["RESOURCE_EXHAUSTED: Quota limit exceeded"]})
    result = sweep(cloud, on_slices)
    assert result.returncode == 0 and "Quota limit exceeded" in result.stdout
    assert cloud.verbs("create") == ["sweep-1"] * 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.launch)]
)
@pytest.mark.slow
def test_ctrl_c_deletes_all_slices_and_the_next_call_goes_on(cloud, on_slices, number, code, wait_for):
    cloud.script("gpicl", **{"1/2": ["hang", 0], "2/2": ["hang", 0]})
    process = cloud.start("tpu_sweep.sh", GIN, *on_slices, "--num_slices", "2")
    wait_for(lambda: len(cloud.calls("gpicl")) == 2)
    out = cloud.stop(process, number)
    assert process.returncode == code and not cloud.slices and "interrupted" in out
    assert sweep(cloud, on_slices, "--num_slices", "2").returncode == 0
    assert len(cloud.calls("gpicl")) == 4


def test_ctrl_c_during_a_request_leaves_no_slice(cloud, on_slices, wait_for):
    cloud.script("gcloud", seconds_of_create=0.5)
    process = cloud.start("tpu_sweep.sh", GIN, *on_slices)
    wait_for(lambda: cloud.verbs("create"))
    cloud.stop(process, signal.SIGINT)
    assert process.returncode == 130 and cloud.verbs("delete") == ["sweep-1"] and not cloud.slices


@pytest.mark.launch
def test_kept_slices_are_adopted_by_the_next_call(cloud, on_slices, wait_for):
    cloud.script("gpicl", **{"1/1": ["hang", 0]})
    process = cloud.start("tpu_sweep.sh", GIN, *on_slices, "--keep")
    wait_for(lambda: cloud.calls("gpicl"))
    out = cloud.stop(process, signal.SIGINT)
    assert process.returncode == 130 and cloud.slices == {"sweep-1"} and "kept" in out
    # Other arguments are not taken for the same.
    other = sweep(cloud, on_slices, "--gin_bindings", "Training.steps = 7")
    assert other.returncode == 2 and "started with other arguments" in other.stderr and cloud.slices == {"sweep-1"}
    process = cloud.start("tpu_sweep.sh", GIN, *on_slices)
    assert "sweep-1: there already, ACTIVE" in process.stdout.readline()
    pid = cloud.calls("gpicl")[0]["pid"]
    os.kill(pid, signal.SIGTERM)  # saves and exits with 42; the host starts it again
    process.communicate(timeout=600)
    assert process.returncode == 0 and cloud.verbs("create") == ["sweep-1"] and not cloud.slices


@pytest.mark.slow
def test_max_parallel_bounds_the_slices_that_exist_at_once(cloud, on_slices):
    result = sweep(cloud, on_slices, "--num_slices", "3", "--max_parallel", "1")
    assert result.returncode == 0
    order = [call[3:5] for call in cloud.calls("gcloud") if set(call) & {"create", "delete"}]
    assert order == [[verb, f"sweep-{i}"] for i in (1, 2, 3) for verb in ("create", "delete")]


def test_hosts_end_what_holds_the_chips(cloud, on_slices):
    device = cloud.folder / "gcloud/dev/accel0"
    device.parent.mkdir()
    device.touch()
    lock = cloud.folder / "gcloud/libtpu_lockfile"
    lock.touch()
    with open(device) as held:
        orphan = subprocess.Popen(["sleep", "3600"], stdin=held)
    try:
        assert sweep(cloud, on_slices).returncode == 0
        assert orphan.wait(timeout=600) == -signal.SIGKILL and not lock.exists()
    finally:
        orphan.kill()


def test_all_hosts_of_a_slice_run_the_same_shard_and_host_0_tells(cloud, on_slices):
    cloud.script("gcloud", hosts=4)
    assert sweep(cloud, on_slices).returncode == 0
    calls = cloud.calls("gpicl")
    assert sorted(call["environment"]["JAX_PROCESS_ID"] for call in calls) == ["0", "1", "2", "3"]
    assert len({(tuple(call["argv"]), call["environment"]["JAX_COORDINATOR_ADDRESS"]) for call in calls}) == 1
    assert (cloud.bucket / "study/.launch/sweep-1.host0.log").exists()


def test_one_run_on_one_slice(cloud, on_slices):
    result = cloud.run("tpu_train.sh", "gin/quickstart.gin", *on_slices)
    assert result.returncode == 0, result.stderr
    [call] = cloud.calls("gpicl")
    assert call["argv"] == ["train", "--gin_file", "gin/quickstart.gin", "--workdir", "gs://bucket/study"]


@pytest.mark.slow
def test_status_and_delete_find_every_slice_of_a_name(cloud, on_slices):
    place = ["--project", "my-project", "--zone", "us-west4-a"]
    assert "no slices" in cloud.run("status.sh", "--name", "sweep", *place).stdout
    assert sweep(cloud, on_slices, "--num_slices", "2", "--keep").returncode == 0
    other = [*on_slices, "--name", "sweep-2"]  # sweep-2-1 is not of the name sweep
    assert cloud.run("tpu_sweep.sh", GIN, *other, "--keep").returncode == 0
    cloud.script("gcloud", errors={"ssh": ["Connection refused"]})
    result = cloud.run("status.sh", "--name", "sweep", "--workdir", "gs://bucket/study", "--log", *place)
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:4] == ["sweep-1 ACTIVE", "the log of sweep-1", "sweep-2 ACTIVE", "the log of sweep-2"]
    assert lines[4].startswith("sweep-1 ended with exit code 0 at ")
    refused = cloud.run("delete.sh", "sweep", *place)
    assert refused.returncode == 2 and "--yes" in refused.stderr and "sweep-2" in cloud.slices
    assert cloud.run("delete.sh", "sweep", *place, "--yes").returncode == 0 and cloud.slices == {"sweep-2-1"}
    again = cloud.run("delete.sh", "sweep", *place, "--yes")
    assert again.returncode == 0 and "no slices" in again.stdout
