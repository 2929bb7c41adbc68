"""Statuses of runs on gs://: few requests, and always today's state."""

import json
import math
import time
from types import SimpleNamespace

import pytest

from gpicl_flax.analysis.data import one_run, runs
from gpicl_flax.errors import Preempted
from gpicl_flax.records import json_lines, lease, phase, schemas
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder, write_json
from gpicl_flax.runs.status import read_status
from gpicl_flax.sweep import table

WORKDIR = "gs://bucket/sweep"
INFO = {"steps": 100, "num_tasks": None, "num_classes": 10, "base_dataset": {"name": "digits"}}
CURVE = {"tasks": "unseen", "base_dataset": "digits", "accuracy": [0.1, 0.9]}
CURVE |= {"accuracy_low": [0.1, 0.9], "accuracy_high": [0.1, 0.9]}


def make_run(name, step, *, left=True):
    """A run whose logs are in segments, as while it trains."""
    folder = RunFolder(f"{WORKDIR}/{name}")
    folder.config.write_text("Run.seed = 1\n")
    write_json(folder.run_info, INFO)
    logs = [json_lines.JsonLines(folder.metrics), json_lines.JsonLines(folder.timing, schemas.TIMING)]
    for log in logs:
        log.replace([])
    for now in range(10, step + 1, 10):
        logs[0].append({"step": now, "loss_ema": 1.0, "plateau": not left, "plateau_left_at": 10 if left else None})
        logs[1].append({"step": now, "time": time.time() + now / 10})
        if now % 30 == 0:
            json_lines.flush(logs)
    json_lines.flush(logs)
    return folder


@pytest.fixture
def sweep(gcs):
    """Points in every state."""
    for number in range(3):
        done = make_run(f"done{number}", 100)
        write_json(done.evaluation(100), {"step": 100, "curves": [CURVE]})
        done.mark(DONE)
    make_run("diverged", 50).mark(DIVERGED, "diverged at step 50")
    with pytest.raises(Preempted), lease.acquire(make_run("preempted", 40)):
        raise Preempted
    running = lease.acquire(make_run("running", 60))
    names = ("done0", "done1", "done2", "diverged", "preempted", "running", "no")
    yield [SimpleNamespace(run_id=name, digest=name, legacy_ids=()) for name in names]
    running.release("")


def test_a_table_makes_at_most_three_requests_a_point(gcs, sweep):
    gcs.mark()
    found = {each.run_id: each for each in table.read_all(sweep, WORKDIR)}
    assert len(gcs.requests()) <= 3 * len(sweep) + 10
    assert {name: (each.state, each.step) for name, each in found.items()} == {
        **{f"done{number}": ("done", 100) for number in range(3)},
        "diverged": ("diverged", 50),
        "preempted": ("preempted", 40),
        "running": ("running", 60),
        "no": ("waiting", None),
    }
    assert found["done0"].phase == phase.classify(True, 0.8, math.inf)
    assert found["running"].seconds_left == pytest.approx(4.0, rel=0.5)


def test_each_state_is_seen_as_soon_as_it_comes(gcs, sweep):
    folder = RunFolder(f"{WORKDIR}/running")
    for expected, change in {
        "running": lambda: None,
        "done": lambda: folder.mark(DONE),
    }.items():
        change()
        assert read_status("running", folder).state == expected
        assert folder.ended == (None if expected == "running" else "DONE")
    gcs.mark()
    assert folder.ended == "DONE" and len(gcs.requests()) == 1


def test_a_report_reads_each_run_in_a_few_requests(gcs, sweep):
    gcs.mark()
    folders = runs.find(WORKDIR)
    found = runs.read_all(folders).table.set_index("run_id")
    assert len(gcs.requests()) <= 8 * len(folders) + 2
    assert list(found.index) == ["diverged", "done0", "done1", "done2", "preempted", "running"]
    assert list(found["last_step"]) == [50, 100, 100, 100, 40, 60] and list(found["ended"].fillna("")) == [
        "DIVERGED", "DONE", "DONE", "DONE", "", "",
    ]  # fmt: skip
    assert math.isfinite(found["unseen_last[digits]"]["done0"])
    run = one_run.read(RunFolder(f"{WORKDIR}/running"))
    assert list(run.metrics.index) == [10, 20, 30, 40, 50, 60]


def test_contents_in_a_listing_are_those_of_the_object(gcs, sweep):
    """Whoever replaces a file with other tools replaces what the listing shows as well."""
    gcs.put("bucket", "sweep/done0/run.json", json.dumps(INFO | {"steps": 7}).encode())
    assert read_status("done0", RunFolder(f"{WORKDIR}/done0")).steps == 7
