"""Sweeps on Cloud TPU slices: what is requested, adopted, tried again and deleted. host_test has what hosts do."""

import signal

import pytest

from gpicl_flax.launch import queued_resources

GIN = "gin/state_size.gin"
PLACE = ["--project", "my-project", "--zone", "us-west4-a"]
RESULT = "study/.launch/sweep-1.result"


@pytest.fixture
def sweep(run, on_slices):
    return lambda *more, **environment: run("sweep", GIN, *on_slices, *more, **environment)


def test_every_shard_gets_a_slice_that_is_deleted_when_it_has_ended(sweep, machine):
    result = sweep("--num_slices", "2", "--spot")
    assert result.code == 0, result.err
    assert machine.gcloud.verbs("create") == sorted(machine.gcloud.verbs("delete")) == ["sweep-1", "sweep-2"]
    assert not machine.gcloud.slices
    create = next(call for call in machine.gcloud.calls if "create" in call)
    assert "--node-id=sweep-1" in create and "--spot" in create and "--runtime-version=v2-alpha-tpuv5-lite" in create
    [first], [second] = machine.gcloud.scripts["sweep-1"], machine.gcloud.scripts["sweep-2"]
    assert first.splitlines()[1] == "SHARD=1" and second == first.replace("\nSHARD=1\n", "\nSHARD=2\n")
    assert f"\nARGUMENTS=(\n  sweep\n  --gin_file\n  {GIN}\n  --workdir\n  gs://bucket/study\n)\n" in first
    assert [line for line in machine.said if "sweep-1" in line] == [
        "sweep-1: requested",
        "sweep-1: WAITING_FOR_RESOURCES",
        "sweep-1: ACTIVE",
        "sweep-1: done",
    ]
    assert machine.said[-1] == "2 of 2 shards done"


def test_a_second_call_submits_nothing(sweep, machine):
    assert sweep().code == 0
    result = sweep()
    assert result.code == 0 and "done already" in result.out and machine.gcloud.verbs("create") == ["sweep-1"]
    # Another payload is not done, and the result of the first one is not taken for its own.
    machine.gcloud.ends["sweep-1"] = [0, 1]
    result = sweep("--gin_bindings", "Training.steps = 7")
    assert result.code == 1 and machine.gcloud.verbs("create") == ["sweep-1", "sweep-1"]


def test_a_result_of_another_payload_is_removed_before_anything_is_requested(sweep, machine):
    assert sweep().code == 0

    def before(words):
        if "create" in words:
            assert not (machine.bucket / RESULT).exists()

    machine.before = before
    assert sweep("--gin_bindings", "Training.steps = 7").code == 0
    assert machine.gcloud.verbs("create") == ["sweep-1", "sweep-1"]


def test_a_slice_that_never_comes_is_given_up_and_deleted(sweep, machine):
    machine.gcloud.states["sweep-1"] = [["ACCEPTED", "WAITING_FOR_RESOURCES"]]
    result = sweep("--wait_seconds", "3600")
    assert result.code == 1 and "not ACTIVE within 3600 seconds" in result.err
    assert machine.gcloud.verbs("delete") == ["sweep-1"] and not machine.gcloud.slices
    assert machine.clock == pytest.approx(3600, abs=30)


@pytest.mark.parametrize("state", ["SUSPENDED", "NONE", "FAILED"])
def test_a_slice_that_is_lost_is_made_anew(sweep, machine, state):
    machine.gcloud.states["sweep-1"] = [["WAITING_FOR_RESOURCES", state], ["PROVISIONING", "ACTIVE"]]
    result = sweep()
    assert result.code == 0, result.err
    assert machine.gcloud.verbs("create") == ["sweep-1", "sweep-1"] and not machine.gcloud.slices
    assert machine.gcloud.verbs("delete") == (["sweep-1"] if state == "NONE" else ["sweep-1", "sweep-1"])
    assert "trying again (1 of at most 10 times in a row)" in result.out


def test_a_slice_that_is_lost_too_often_fails_its_shard_alone(sweep, machine):
    machine.gcloud.states["sweep-1"] = [["FAILED"]]
    result = sweep("--num_slices", "2", "--max_restarts", "2")
    assert result.code == 1 and "sweep-1: is FAILED; lost 3 times in a row (--max_restarts 2)" in result.err
    assert machine.gcloud.verbs("create").count("sweep-1") == 3 and not machine.gcloud.slices
    assert "sweep-2: done" in result.out and "1 of 2 shards done" in result.out
    assert "1 of 2 shards failed" in result.err


def test_a_slice_that_had_lived_long_was_not_lost_in_a_row(sweep, machine):
    lives = ["ACTIVE"] * 100 + ["SUSPENDED"]  # 50 minutes
    machine.gcloud.states["sweep-1"] = [lives] * 4 + [["ACTIVE"]]
    machine.gcloud.ends["sweep-1"] = [None] * 4
    result = sweep("--max_restarts", "1")
    assert result.code == 0 and result.out.count("(1 of at most 1 times in a row)") == 4


def test_a_preempted_run_goes_on_on_a_new_slice(sweep, machine):
    machine.gcloud.states["sweep-1"] = [["ACTIVE", "ACTIVE", "SUSPENDED"], ["ACTIVE"]]
    machine.gcloud.ends["sweep-1"] = [None, 0]
    result = sweep()
    assert result.code == 0, result.err
    assert machine.gcloud.verbs("create") == ["sweep-1", "sweep-1"] and "sweep-1: is SUSPENDED" in result.out


def test_what_failed_is_shown_and_tried_again_by_the_next_call_alone(sweep, machine):
    machine.gcloud.ends |= {"sweep-1": [2], "sweep-2": [1]}
    result = sweep("--num_slices", "3")
    assert result.code == 1
    assert "sweep-1: gpicl ended with exit code 2: wrong usage" in result.err
    assert "sweep-2: gpicl ended with exit code 1: failed 3 times in a row" in result.err
    assert "--- the end of gs://bucket/study/.launch/sweep-2.host0.log\nthe log of sweep-2\n---" in result.out
    assert "1 of 3 shards done" in result.out and not machine.gcloud.slices
    assert sweep("--num_slices", "3").code == 0
    assert machine.gcloud.verbs("create")[3:] == ["sweep-1", "sweep-2"]


def test_create_says_already_exists(sweep, machine):
    """Another call may have been faster, or a first answer lost on the way."""
    assert sweep("--keep").code == 0 and machine.gcloud.slices.keys() == {"sweep-1"}
    (machine.bucket / RESULT).unlink()
    machine.gcloud.errors["describe"] = ["NOT_FOUND: no", "NOT_FOUND: no"]
    result = sweep()
    assert result.code == 0, result.err
    assert machine.gcloud.verbs("create") == ["sweep-1", "sweep-1"]
    assert "sweep-1: there already" in machine.said and not machine.gcloud.slices


def test_errors_of_gcloud_that_pass_are_not_taken_for_a_lost_slice(sweep, machine):
    down = "UNAVAILABLE: The service is currently unavailable"
    machine.gcloud.errors |= {"describe": [down, None, None, down, down], "delete": [down]}
    result = sweep()
    assert result.code == 0, result.err
    assert machine.gcloud.verbs("create") == ["sweep-1"] and machine.gcloud.verbs("delete") == ["sweep-1"] * 2
    assert result.err.count("UNAVAILABLE") == 1 and not machine.gcloud.slices  # said once, not at each look


def test_a_gcloud_that_answers_no_more_is_given_up(sweep, machine):
    machine.gcloud.errors |= {"describe": [None, None, *["UNAVAILABLE: no"] * 30], "delete": ["UNAVAILABLE: no"] * 4}
    result = sweep()
    assert result.code == 1 and "sweep-1: gcloud does not answer: " in result.err
    assert "sweep-1 could not be deleted" in result.err and "delete it by hand: gcloud compute tpus" in result.err


def test_a_gcloud_that_never_answers_changes_nothing(sweep, machine):
    machine.gcloud.errors["describe"] = ["UNAVAILABLE: no"] * 5
    result = sweep()
    assert result.code == 1 and "gcloud does not say whether sweep-1 exists: " in result.err
    assert machine.gcloud.verbs("create") == machine.gcloud.verbs("delete") == []


def test_a_request_that_can_never_work_fails_at_once(sweep, machine):
    machine.gcloud.errors["create"] = ["PERMISSION_DENIED: Permission 'tpu.nodes.create' denied"]
    result = sweep()
    assert result.code == 1 and "tpu.nodes.create" in result.err and machine.gcloud.verbs("create") == ["sweep-1"]


def test_a_request_beyond_the_quota_is_tried_again(sweep, machine):
    machine.gcloud.errors["create"] = ["RESOURCE_EXHAUSTED: Quota limit exceeded"]
    result = sweep()
    assert result.code == 0 and "Quota limit exceeded" in result.out
    assert machine.gcloud.verbs("create") == ["sweep-1"] * 2


def stop_at(machine, word, count=1):
    """Lets a Ctrl-C come while a command runs that has this word, the count-th time."""
    seen = []

    def before(words):
        if word in words:
            seen.append(words)
            if len(seen) == count:
                machine.stop()

    machine.before = before


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_ctrl_c_deletes_all_slices_and_the_next_call_goes_on(sweep, machine, name, code):
    machine.gcloud.ends |= {"sweep-1": [None, 0], "sweep-2": [None, 0]}
    machine.stop_signal = getattr(signal, name)
    stop_at(machine, "describe", count=8)
    result = sweep("--num_slices", "2")
    assert result.code == code and not machine.gcloud.slices and "interrupted" in result.out
    assert sorted(machine.gcloud.verbs("delete")) == ["sweep-1", "sweep-2"]
    machine.before = lambda words: None
    assert sweep("--num_slices", "2").code == 0
    assert sorted(machine.gcloud.verbs("create")) == ["sweep-1", "sweep-1", "sweep-2", "sweep-2"]


def test_a_second_ctrl_c_does_not_keep_slices_from_being_deleted(sweep, machine):
    machine.gcloud.ends |= {f"sweep-{shard}": [None] for shard in (1, 2)}
    stop_at(machine, "describe", count=8)
    one_stop = machine.before

    def before(words):
        one_stop(words)
        if "delete" in words:
            machine.stop()

    machine.before = before
    machine.gcloud.errors["delete"] = ["UNAVAILABLE: no"]
    result = sweep("--num_slices", "2")
    assert result.code == 130 and not machine.gcloud.slices and "is left" not in result.err


def test_a_slice_that_cannot_be_deleted_at_the_end_is_named(sweep, machine):
    machine.gcloud.ends["sweep-1"] = [None]
    machine.gcloud.errors["delete"] = ["UNAVAILABLE: no"] * 4
    stop_at(machine, "describe", count=4)
    result = sweep()
    assert result.code == 130
    assert "sweep-1: is left; launch/delete.sh --name sweep --project my-project --zone us-west4-a" in result.err


def test_ctrl_c_during_a_request_leaves_no_slice(sweep, machine):
    stop_at(machine, "create")
    result = sweep("--num_slices", "2")
    assert result.code == 130 and machine.gcloud.verbs("create") == machine.gcloud.verbs("delete") == ["sweep-1"]
    assert not machine.gcloud.slices


def test_ctrl_c_before_the_request_requests_nothing(run, machine, without_package, prepared):
    stop_at(machine, "wheel")
    result = run("sweep", "gin/sgd.gin", *without_package, "--data_dir", str(prepared))
    assert result.code == 130 and machine.gcloud.verbs("create") == machine.gcloud.verbs("delete") == []
    assert not machine.bucket.exists()  # nor was anything copied after it


def test_ctrl_c_at_the_first_look_changes_nothing(sweep, machine):
    assert sweep("--num_slices", "2", "--keep").code == 0
    stop_at(machine, "describe")
    result = sweep("--num_slices", "2")
    assert result.code == 130 and machine.gcloud.slices.keys() == {"sweep-1", "sweep-2"}
    assert not machine.gcloud.verbs("delete")


def test_kept_slices_are_adopted_by_the_next_call(sweep, machine):
    machine.gcloud.ends["sweep-1"] = [None]
    stop_at(machine, "describe", count=4)
    result = sweep("--keep")
    assert result.code == 130 and machine.gcloud.slices.keys() == {"sweep-1"} and "kept (--keep)" in result.out
    machine.before = lambda words: None
    # Other arguments are not taken for the same.
    other = sweep("--gin_bindings", "Training.steps = 7")
    assert other.code == 2 and "started with other arguments" in other.err
    assert machine.gcloud.slices.keys() == {"sweep-1"}
    machine.gcloud.slices["sweep-1"].ends = 0
    result = sweep()
    assert result.code == 0 and machine.said[0] == "sweep-1: there already, ACTIVE"
    assert machine.gcloud.verbs("create") == ["sweep-1"] and not machine.gcloud.slices


class Killed(BaseException):
    """Ends a command as SIGKILL does: nothing is put in order."""


def test_what_a_killed_launcher_has_left_is_adopted(run, machine, on_slices):
    machine.gcloud.ends |= {"sweep-1": [None], "sweep-2": [1]}

    def before(words):
        if "describe" in words and len(machine.gcloud.verbs("describe")) == 8:
            raise Killed

    machine.before = before
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(queued_resources._Engine, "say_what_is_left", lambda self: None)
        run("sweep", GIN, *on_slices, "--num_slices", "2")
    machine.before = lambda words: None
    assert machine.gcloud.slices.keys() == {"sweep-1", "sweep-2"}
    machine.gcloud.slices["sweep-1"].ends = 0
    result = run("sweep", GIN, *on_slices, "--num_slices", "2")
    assert result.code == 0, result.err
    # The first one still runs. The second one has left a failure, and waits for nothing: it is made anew.
    assert "sweep-2: deleting, its last try failed" in result.out
    assert machine.gcloud.verbs("create") == ["sweep-1", "sweep-2", "sweep-2"] and not machine.gcloud.slices


def test_a_slice_whose_shard_is_done_is_deleted_by_the_next_call(sweep, machine):
    assert sweep("--keep").code == 0 and machine.gcloud.slices
    result = sweep()
    assert result.code == 0 and "sweep-1: deleting, it is not needed any more" in result.out
    assert not machine.gcloud.slices and machine.gcloud.verbs("create") == ["sweep-1"]


def test_a_deletion_that_fails_unseen_is_tried_again(sweep, machine):
    machine.gcloud.states["sweep-1"] = [["FAILED"], ["ACTIVE"]]
    machine.gcloud.deletes_nothing = True

    def before(words):
        if "delete" in words and len(machine.gcloud.verbs("delete")) == 1:  # the second time
            machine.gcloud.deletes_nothing = False

    machine.before = before
    result = sweep()
    assert result.code == 0 and "sweep-1: deleting, again" in result.out
    assert 300 < machine.clock < 500 and machine.gcloud.verbs("create") == ["sweep-1"] * 2


def test_max_parallel_bounds_the_slices_that_exist_at_once(sweep, machine):
    assert sweep("--num_slices", "3", "--max_parallel", "1").code == 0
    order = [call[3:5] for call in machine.gcloud.calls if set(call) & {"create", "delete"}]
    assert order == [[verb, f"sweep-{i}"] for i in (1, 2, 3) for verb in ("create", "delete")]


def test_a_working_folder_that_cannot_be_written_fails_the_shard(run, machine, on_slices):
    blocked = machine.folder / "blocked"
    blocked.write_text("a file")
    result = run("sweep", GIN, *on_slices, "--workdir", f"{blocked}/study")
    assert result.code == 1 and f"sweep-1: cannot write to {blocked}/study/.launch/sweep-1.submitted" in result.err
    assert machine.gcloud.verbs("create") == []


def test_one_run_on_one_slice(run, machine, on_slices):
    result = run("train", "gin/quickstart.gin", *on_slices)
    assert result.code == 0, result.err
    [script] = machine.gcloud.scripts["sweep-1"]
    assert "\nARGUMENTS=(\n  train\n  --gin_file\n  gin/quickstart.gin\n  --workdir\n  gs://bucket/study\n)\n" in script


def test_status_and_delete_find_every_slice_of_a_name(run, sweep, machine, on_slices):
    assert "no slices" in run("status", "--name", "sweep", *PLACE).out
    assert sweep("--num_slices", "2", "--keep").code == 0
    other = [*on_slices, "--name", "sweep-2"]  # sweep-2-1 is not of the name sweep
    assert run("sweep", GIN, *other, "--keep").code == 0
    machine.gcloud.errors["ssh"] = ["Connection refused"]  # once
    result = run("status", "--name", "sweep", "--workdir", "gs://bucket/study", "--log", *PLACE)
    assert result.code == 0, result.err
    lines = [" ".join(line.split()) for line in machine.lines]
    assert lines[:2] == ["sweep-1 ACTIVE", "the end of the log of sweep-1"]
    assert lines[2:4] == ["sweep-2 ACTIVE", "the end of the log of sweep-2"]
    assert lines[4:] == [f"sweep-{shard} ended with exit code 0 at now: done" for shard in (1, 2)]
    refused = run("delete", "sweep", *PLACE)
    assert refused.code == 2 and "--yes" in refused.err and "sweep-2" in machine.gcloud.slices
    assert run("delete", "sweep", *PLACE, "--yes").code == 0 and machine.gcloud.slices.keys() == {"sweep-2-1"}
    again = run("delete", "sweep", *PLACE, "--yes")
    assert again.code == 0 and "no slices" in again.out


def test_status_says_what_could_not_be_read(run, sweep, machine):
    assert sweep("--keep").code == 0
    machine.gcloud.errors["list"] = ["UNAVAILABLE: no"]
    result = run("status", "--name", "sweep", "--workdir", "gs://bucket/study", *PLACE)
    assert result.code == 1 and "UNAVAILABLE" in result.err
    assert "ended with exit code 0" in result.out  # all the same
    machine.gcloud.errors["ssh"] = ["Connection refused"] * 3
    result = run("status", "--name", "sweep", "--log", *PLACE)
    assert result.code == 0 and "the log of sweep-1 could not be read" in result.err


def test_status_with_gin_files_shows_the_runs(run, machine):
    result = run("status", GIN, "--scale", "cpu", "--only", "LSTM*", "--workdir", "gs://bucket/study", *PLACE)
    assert result.code == 0 and "no slices of the name state-size" in result.out
    assert "the table of the runs" in result.out
    files = ["--gin_file", GIN, "--gin_file", "gin/scale/cpu.gin"]
    assert machine.calls[-1][1:] == ["sweep", *files, "--only", "LSTM*", "--workdir", "gs://bucket/study", "--status"]


def test_what_goes_away_already_is_not_deleted(run, sweep, machine):
    assert sweep("--keep").code == 0
    machine.gcloud.slices["sweep-1"].state = "DELETING"
    result = run("delete", "sweep", *PLACE, "--yes")
    assert result.code == 0 and "no slices" in result.out and not machine.gcloud.verbs("delete")


def test_a_deletion_that_fails_is_told(run, sweep, machine):
    assert sweep("--num_slices", "2", "--keep").code == 0
    machine.gcloud.errors["delete"] = ["PERMISSION_DENIED: no"] * 4
    result = run("delete", "sweep", *PLACE, "--yes")
    assert result.code == 1 and "not deleted: sweep-1" in result.err and machine.gcloud.slices.keys() == {"sweep-1"}


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("Yes", 0), ("", 1), ("n", 1), (None, 2)])
def test_a_deletion_is_confirmed_once(run, sweep, machine, answer, code):
    assert sweep("--num_slices", "2", "--keep").code == 0
    machine.answer = answer
    result = run("delete", "sweep", *PLACE)
    assert result.code == code and "to be deleted: sweep-1 sweep-2" in result.out
    assert (not machine.gcloud.slices) is (code == 0)
