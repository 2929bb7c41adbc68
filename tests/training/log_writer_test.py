"""Logs are written in the background, and nothing of them is lost when storage is away."""

import logging

import pytest
from etils import epath

from gpicl_flax.errors import Preempted, StorageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.schemas import Schema
from gpicl_flax.runtime import gcs_file_system
from gpicl_flax.training import log_writer
from gpicl_flax.training.log_writer import LogWriter

ROWS = Schema(dict[str, object], "restore it")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(log_writer, "_WRITE_SECONDS", 0.01)
    monkeypatch.setattr(log_writer, "_SHARE", 1.0)
    monkeypatch.setattr(gcs_file_system, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(gcs_file_system, "_FIRST_DELAY", 0.01)


@pytest.fixture(params=["local", "gs://"])
def log(request, tmp_path):
    """An empty log."""
    if request.param == "local":
        folder = epath.Path(tmp_path)
    else:
        request.getfixturevalue("gcs")
        folder = epath.Path("gs://bucket/run")
    log = JsonLines(folder / "log.jsonl", ROWS)
    log.replace([])
    return log


def steps(log):
    return [row["step"] for row in json_lines.read(log._path, ROWS)]


def test_rows_come_without_being_asked_for(log, wait_for):
    with LogWriter() as writer:
        writer.add(log)
        for step in range(1, 4):
            log.append({"step": step})
            wait_for(lambda step=step: steps(log) == list(range(1, step + 1)))
        log.append({"step": 4})
    assert steps(log) == [1, 2, 3, 4] and log._path.read_text().count("\n") == 4


def test_rows_wait_for_storage_that_is_away(gcs, wait_for, caplog):
    log = JsonLines(epath.Path("gs://bucket/run/log.jsonl"), ROWS)
    log.replace([])
    with caplog.at_level(logging.WARNING), LogWriter() as writer:
        writer.add(log)
        gcs.stop()
        log.append({"step": 1})
        wait_for(lambda: caplog.messages)
        log.append({"step": 2})
        with pytest.raises(StorageError, match="gs://bucket has not answered"):
            writer.flush()
        gcs.start()
        wait_for(lambda: steps(log) == [1, 2])
    (message,) = caplog.messages  # not one for every round
    assert message.startswith("logs cannot be written now (") and message.endswith("); trying again")


@pytest.mark.parametrize(("error", "merged"), [(None, True), (Preempted("stop"), True), (RuntimeError("bug"), False)])
def test_a_log_is_one_object_at_the_end_unless_the_run_failed(gcs, error, merged):
    log = JsonLines(epath.Path("gs://bucket/run/log.jsonl"), ROWS)
    log.replace([])

    def run():
        with LogWriter() as writer:
            writer.add(log)
            log.append({"step": 1})
            writer.flush()
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            run()
    else:
        run()
    assert (list(gcs.objects("bucket")) == ["run/log.jsonl"]) == merged
    assert steps(log) == [1]


def test_a_checkpoint_lets_the_next_round_merge(gcs, wait_for):
    log = JsonLines(epath.Path("gs://bucket/run/log.jsonl"), ROWS)
    log.replace([])
    with LogWriter() as writer:
        writer.add(log)
        log.append({"step": 1})
        writer.flush()
        writer.merge()
        wait_for(lambda: gcs.objects("bucket") == {"run/log.jsonl": b'{"step": 1}\n'})
