"""Logs on gs://: each write makes a segment, and the log itself is made of them on the server."""

import json

import pytest
from etils import epath

from gpicl_flax.errors import Damaged, StorageError
from gpicl_flax.records import json_lines, segments
from gpicl_flax.records.schemas import Schema
from gpicl_flax.runtime import gcs_file_system

ROWS = Schema(dict[str, object], "restore it")
FOLDER = epath.Path("gs://bucket/run")
LOG = FOLDER / "metrics.jsonl"


@pytest.fixture(autouse=True)
def quick_retries(gcs, monkeypatch):
    monkeypatch.setattr(gcs_file_system, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(gcs_file_system, "_LONGEST_DELAY", 0.05)


def opened(*names):
    """Returns logs that a new run writes."""
    logs = [json_lines.JsonLines(FOLDER / name, ROWS) for name in names or [LOG.name]]
    for log in logs:
        log.replace([])
    return logs


def fill(log, steps):
    for step in steps:
        log.append({"step": step, "text": "x" * (step * 37 % 500)})


def steps_of(rows):
    return [row["step"] for row in rows]


def test_a_write_is_one_request_for_each_log_and_all_are_read(gcs):
    logs = opened("metrics.jsonl", "timing.jsonl")
    for first in (1, 4, 7):
        for log in logs:
            fill(log, range(first, first + 3))
        gcs.mark()
        json_lines.flush(logs)
        json_lines.flush(logs)  # nothing new
        assert [record["kind"] for record in gcs.requests()] == ["upload"] * 2
        gcs.mark()
        assert steps_of(json_lines.read(LOG, ROWS)) == list(range(1, first + 3))
        assert [record["kind"] for record in gcs.requests()].count("list") == 1
    assert steps_of(json_lines.read_last(LOG, 1, ROWS)) == [9]
    assert steps_of(json_lines.read_last(LOG, 5, ROWS)) == [5, 6, 7, 8, 9]
    assert steps_of(json_lines.read_last(LOG, 50, ROWS)) == list(range(1, 10))
    assert steps_of(json_lines.read_last(LOG, 50, ROWS, enough=2)) == [7, 8, 9]


def test_the_merged_log_is_that_of_a_disk_to_the_byte(gcs, tmp_path):
    local, (log,) = json_lines.JsonLines(epath.Path(tmp_path) / "log", ROWS), opened()
    gcs.mark()
    for step in range(1, 100):  # more segments than one request appends
        for each in (local, log):
            fill(each, [step])
            each.flush()
        if step in (2, 3, 40):
            json_lines.merge([log])
    json_lines.merge([log])
    expected = (tmp_path / "log").read_bytes()
    assert gcs.objects("bucket") == {"run/metrics.jsonl": expected}
    sent = sum(record["bytes_in"] for record in gcs.requests() if record["kind"] == "upload")
    assert sent < 3 * len(expected) + 99 * 400  # once, with what an upload adds


@pytest.mark.parametrize("kind", ["503", "reset", "reset_after"])
def test_requests_that_fail_neither_lose_nor_double_rows(gcs, kind):
    (log,) = opened()
    gcs.set_faults(rate=0.4, kinds=[kind], seed=3)
    for step in range(1, 30):
        fill(log, [step])
        log.flush()
        if step % 10 == 0:
            json_lines.merge([log])
    json_lines.merge([log])
    gcs.clear_faults()
    assert list(gcs.objects("bucket")) == ["run/metrics.jsonl"]
    assert steps_of(json_lines.read(LOG, ROWS)) == list(range(1, 30))


def test_rows_stay_until_they_are_written(gcs, monkeypatch):
    monkeypatch.setattr(gcs_file_system, "RETRY_SECONDS", 0.2)
    (log,) = opened()
    fill(log, [1, 2])
    gcs.stop()
    with pytest.raises(StorageError):
        log.flush()
    fill(log, [3])
    gcs.start()
    log.flush()
    log.flush()
    assert steps_of(json_lines.read(LOG, ROWS)) == [1, 2, 3]


def test_rows_that_the_log_has_already_do_not_count(gcs):
    """A process may be killed between appending segments and removing them, or write one after it lost its run."""
    (log,) = opened()
    fill(log, range(1, 7))
    log.flush()
    json_lines.merge([log])
    for first, rows in ((3, (3, 4)), (5, (5, 6, 7))):
        text = "".join(json.dumps({"step": step, "stale": True}) + "\n" for step in rows)
        gcs.put("bucket", f"run/metrics.{first:010d}.jsonl", text.encode())
    rows = json_lines.read(LOG, ROWS)
    assert steps_of(rows) == list(range(1, 8)) and [row["step"] for row in rows if "stale" in row] == [7]


def test_a_resumed_run_goes_on_after_its_checkpoint(gcs):
    (log,) = opened()
    for first in (1, 4, 7):
        fill(log, range(first, first + 3))
        log.flush()
    again = json_lines.JsonLines(LOG, ROWS)
    again.replace(again.rows_until(5))
    assert list(gcs.objects("bucket")) == ["run/metrics.jsonl"]
    fill(again, [6])
    again.flush()
    json_lines.merge([again])
    assert steps_of(json_lines.read(LOG, ROWS)) == list(range(1, 7))


def test_a_log_that_another_process_changed_is_not_merged(gcs):
    (log,) = opened()
    fill(log, [1])
    log.flush()
    gcs.put("bucket", "run/metrics.jsonl", b'{"step": 0}\n')
    with pytest.raises(StorageError, match=r"run/metrics.jsonl was changed by another process"):
        json_lines.merge([log])


def test_damage_is_found_in_segments_as_well(gcs):
    (log,) = opened()
    fill(log, [1])
    log.flush()
    gcs.put("bucket", "run/metrics.0000000002.jsonl", b'{"step": 2}\n{"st\n{"step": 4}\n{"step"')
    with pytest.raises(Damaged, match=r"metrics.0000000002.jsonl, line 2 is damaged"):
        json_lines.read(LOG, ROWS)
    assert steps_of(json_lines.read(LOG, ROWS, skip_damaged=True)) == [1, 2, 4]


def test_other_names_are_no_segments(gcs):
    names = ["metrics.0000000010.jsonl", "metrics.0000000002.jsonl", "metrics.10.jsonl", "metrics.jsonl", "metrics.png"]
    assert segments.of(LOG, names) == [f"{FOLDER}/metrics.0000000002.jsonl", f"{FOLDER}/metrics.0000000010.jsonl"]
    assert json_lines.read(LOG, ROWS) == [] and json_lines.read_last(LOG, 1, ROWS) == []
