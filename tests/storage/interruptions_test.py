"""Runs on gs:// that are killed or stopped end as undisturbed ones on a disk do, byte for byte."""

import signal

import pytest

from tests.storage.conftest import remote_files, results

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "moments",
    [
        (
            r"delete run/\.rights",
            r"upload run/run\.json",
            r"upload run/metrics\.\d",
            r"upload run/checkpoints/400.*/commit_success",
            r"delete run/checkpoints/400/",
            r"compose run/metrics",
            r"upload run/eval/",
        ),
        (
            r"upload run/\.claim/",
            r"upload run/checkpoints/1600/commit_success",
            r"delete run/metrics\.\d",
            r"upload run/DONE",
        ),
    ],
)
def test_a_run_that_is_killed(gcs, start, options, undisturbed, moments):
    """Each moment is a request that the process waits for when it is killed."""
    train, uploads = ["train", "--workdir", "gs://bucket/run", *options, "--quiet"], []
    for moment in moments:
        gcs.set_faults(match=moment, rate=1.0, kinds=["stall"], stall=600.0)
        gcs.mark()
        command = start(*train)
        command.wait_for(lambda: any(record["fault"] for record in gcs.requests()))
        command.process.kill()
        command.wait()
        uploads.append(uploaded(gcs))
        gcs.stop()  # so that the server forgets the request
        gcs.clear_faults()
        gcs.start()
    gcs.mark()
    start(*train).succeed()
    files = remote_files(gcs, "run")
    assert results(files) == results(undisturbed)
    uploads.append(uploaded(gcs))
    for step in (1200, 1600):  # each is of one process, without what another one left when it was killed
        folder = f"checkpoints/{step}/"
        (complete,) = (names for names in uploads if f"{folder}commit_success.txt" in names)
        assert {name for name in files if name.startswith(folder)} <= complete


def test_a_run_that_is_stopped_by_sigterm(gcs, start, options, undisturbed):
    train = ["train", "--workdir", "gs://bucket/run", *options, "--quiet"]
    gcs.set_faults(latency=0.05)
    command = start(*train)
    saved = "run/checkpoints/400/commit_success.txt"
    command.wait_for(lambda: saved in gcs.objects("bucket", saved))
    command.process.send_signal(signal.SIGTERM)
    assert command.wait() == 42
    (line,) = command.errors
    assert line.startswith("gpicl: stopped at step ") and "saved" in line
    assert "run/DONE" not in gcs.objects("bucket", "run/DONE")
    start(*train).succeed()
    found, expected = results(remote_files(gcs, "run")), results(undisturbed)
    assert len(found.pop("checkpoints")) == len(expected.pop("checkpoints"))  # one may be that of the stop
    assert found == expected


def uploaded(gcs):
    """The names of the objects that a process has uploaded since the last mark, in the run's folder."""
    records = gcs.requests()
    return {each["name"].removeprefix("run/") for each in records if each["kind"] == "upload" and each["status"] == 200}
