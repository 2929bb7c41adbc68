"""Runs on gs:// while requests fail, answers take long, or nothing answers at all."""

import time

import pytest

from tests.storage.conftest import remote_files, results

pytestmark = pytest.mark.slow

# The command with retries that end sooner than those of users.
SHORT_RETRIES = """
from gpicl_flax.runtime import gcs
from gpicl_flax.training import checkpoint
gcs.RETRY_SECONDS = 6.0
checkpoint._ATTEMPTS["gcs_request_retries"]["max_retries"] = 3
from gpicl_flax.cli.main import run_process
run_process()
"""
SAVED = "run/checkpoints/400/commit_success.txt"


@pytest.fixture
def train(options):
    return ["train", "--workdir", "gs://bucket/run", *options, "--quiet"]


@pytest.mark.parametrize(
    "faults",
    [
        {"rate": 0.15, "kinds": ["503", "429", "reset", "reset_after"]},
        {"rate": 0.02, "kinds": ["stall"], "stall": 30.0, "seed": 1},
    ],
    ids=["15% of requests fail", "2% of answers take 30 s"],
)
def test_requests_that_fail_or_take_long(gcs, start, train, undisturbed, faults):
    gcs.set_faults(**faults)
    command = start(*train)
    seconds = command.succeed()
    assert command.errors == []
    failed = [record["fault"] for record in gcs.requests() if record["fault"]]
    print(f"{len(failed)} of {len(gcs.requests())} requests failed or took long: {seconds:.0f} s")
    assert set(failed) == set(faults["kinds"])
    assert results(remote_files(gcs, "run")) == results(undisturbed)


def test_an_outage_of_a_minute(gcs, start, train, undisturbed):
    gcs.set_faults(latency=0.02)
    command = start(*train)
    command.wait_for(lambda: SAVED in gcs.objects("bucket", SAVED))
    gcs.stop()
    time.sleep(60)
    assert command.is_alive
    gcs.start()
    command.succeed()
    assert not [line for line in command.errors if not line.startswith("warning: logs cannot be written now")]
    assert results(remote_files(gcs, "run")) == results(undisturbed)


def test_an_outage_that_does_not_end(gcs, start, train, undisturbed):
    """The command ends with one line. Afterwards it goes on."""
    gcs.set_faults(latency=0.02)
    command = start(*train, program=["-c", SHORT_RETRIES])
    command.wait_for(lambda: SAVED in gcs.objects("bucket", SAVED))
    gcs.stop()
    begun = time.monotonic()
    assert command.wait(120) == 1
    print(f"ended {time.monotonic() - begun:.0f} s after the outage began: {command.errors[-1]}")
    lines = [line for line in command.errors if not line.startswith("warning: logs cannot be written now")]
    assert len(lines) == 1 and lines[0].startswith("gpicl: error: gs://bucket"), command.errors
    assert "start the same command again" in lines[0]
    gcs.start()
    start(*train).succeed()
    assert results(remote_files(gcs, "run")) == results(undisturbed)
