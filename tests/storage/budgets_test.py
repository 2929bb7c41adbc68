"""Requests, bytes and times of a large stack and of a large sweep on gs://, where every request takes 50 ms.

Requests and bytes are checked. Times are printed, because other work on the machine changes them.
"""

import json
import re
import time

import numpy as np
import pytest

from gpicl_flax.analysis.data import study
from tests.storage.conftest import below, gin_options, local_files, remote_files, results

pytestmark = pytest.mark.slow
LATENCY = 0.05  # seconds
MEMBERS, STEPS, PERIOD = 12, 10_000, 2500
RUNS = 200
LOG = re.compile(r"/(metrics|timing)(\.\d+)?\.jsonl$")


def test_a_stack_of_12(gcs, start, small_bindings, tmp_path):
    bindings = [
        "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", f"Training.steps = {STEPS}",
        "Training.steps_per_dispatch = 10", f"Training.checkpoint_period = {PERIOD}",
        "MetaTest.at_checkpoints = False", f"sweep.grids = [{{'Run.seed': {list(range(MEMBERS))}}}]",
    ]  # fmt: skip
    sweep = ["sweep", *gin_options([*small_bindings, *bindings]), "--stack", str(MEMBERS), "--quiet", "--workdir"]
    whole = [start(*sweep, str(tmp_path / "study")).succeed()]
    gcs.set_faults(latency=LATENCY)
    gcs.mark()
    command = start(*sweep, "gs://bucket/study")
    whole.append(command.succeed())
    assert command.errors == []

    local, remote = local_files(tmp_path / "study"), remote_files(gcs, "study")
    run_ids = sorted({name.partition("/")[0] for name in local})
    assert len(run_ids) == MEMBERS and run_ids == sorted({name.partition("/")[0] for name in remote})
    speeds = []
    for files in (local, remote):
        speeds.append(np.mean([steps_a_second(files[f"{run_id}/timing.jsonl"]) for run_id in run_ids]))
    for run_id in run_ids:
        assert results(below(remote, run_id)) == results(below(local, run_id))

    requests = gcs.requests()
    saves = MEMBERS * STEPS // PERIOD
    of_saves = sum("/checkpoints/" in record["name"] or record["kind"] == "bucket_get" for record in requests)
    log_bytes = sum(len(data) for name, data in remote.items() if LOG.search(name))
    sent = sum(record["bytes_in"] for record in requests if LOG.search(record["name"]))
    print(
        f"\nsteps a second between checkpoints: {speeds[0]:.0f} here, {speeds[1]:.0f} there; "
        f"whole time: {whole[0]:.1f} s here, {whole[1]:.1f} s there; "
        f"{len(requests)} requests, {of_saves / saves:.0f} a checkpoint; "
        f"bytes sent for logs: {sent / log_bytes:.2f} times their size ({log_bytes / 1e6:.1f} MB)"
    )
    assert sent <= 3 * log_bytes
    assert of_saves <= 100 * saves
    # Every 5 s each of two logs is written, in an object that is removed later.
    assert len(requests) - of_saves <= MEMBERS * (60 + 4 * whole[1] / 5)


def steps_a_second(timing):
    """The mean speed in the log of a run, without the rows in which a checkpoint was saved."""
    rows = [json.loads(line) for line in timing.splitlines()]
    pairs = [(one, other) for one, other in zip(rows, rows[1:], strict=False) if one["step"] % PERIOD]
    steps, seconds = (sum(other[key] - one[key] for one, other in pairs) for key in ("step", "time"))
    return steps / seconds


def test_200_runs(gcs, start, small_bindings):
    bindings = [
        "Run.model = @LSTM()", "LSTM.hidden_size = 4", "Training.steps = 20", "Training.checkpoint_period = 20",
    ]  # fmt: skip
    grid = gin_options([*small_bindings, *bindings, f"sweep.grids = [{{'Run.seed': {list(range(RUNS))}}}]"])
    start("train", "--workdir", "gs://bucket/one", *gin_options([*small_bindings, *bindings]), "--quiet").succeed()
    listed = start("sweep", "--list", "--json", *grid)
    listed.succeed()
    run_ids = [json.loads(line)["run_id"] for line in listed.output.splitlines()]
    assert len(set(run_ids)) == RUNS
    for run_id in run_ids:
        gcs.clone("bucket", "one/", f"study/{run_id}/")

    gcs.set_faults(latency=LATENCY)
    gcs.mark()
    status = start("sweep", "--status", "--workdir", "gs://bucket/study", *grid)
    whole = status.succeed()
    assert status.output.rstrip().endswith(f"{RUNS} points: {RUNS} done")
    requests = gcs.requests()
    print(f"\nstatus of {RUNS} runs: {len(requests)} requests in {span(requests):.1f} s, {whole:.1f} s with the start")
    assert len(requests) <= 3 * RUNS + 10

    gcs.mark()
    begun = time.monotonic()
    found = study.load("gs://bucket/study")
    requests = gcs.requests()
    print(f"reading them for a report: {len(requests)} requests in {time.monotonic() - begun:.1f} s")
    assert (found.table["ended"] == "DONE").sum() == RUNS and len(found.evaluations)
    assert len(requests) <= 4 * RUNS + 10


def span(requests):
    """The time from the first request to the end of the last one, in seconds."""
    return max(each["time"] + each["seconds"] for each in requests) - requests[0]["time"]
