import json
import os

import pytest
from etils import epath

from gpicl_flax.errors import Damaged
from gpicl_flax.records import json_lines
from gpicl_flax.records.schemas import Schema

ROWS = Schema(dict[str, object], "restore it")


def test_rows_are_written_on_flush_and_appended(tmp_path):
    path = epath.Path(tmp_path) / "folder" / "log.jsonl"
    log = json_lines.JsonLines(path, ROWS)
    log.append({"step": 1})
    assert json_lines.read(path, ROWS) == []
    log.flush()
    log.append({"step": 2, "loss": 0.1 + 0.2})
    log.flush()
    log.flush()
    assert json_lines.read(path, ROWS) == [{"step": 1}, {"step": 2, "loss": 0.1 + 0.2}]


def test_a_row_that_was_cut_off_is_not_read(tmp_path):
    path = epath.Path(tmp_path) / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in json_lines.read(path, ROWS)] == [1, 2]


def test_rows_after_a_step_are_dropped_and_the_rest_stays_to_the_letter(tmp_path):
    path = epath.Path(tmp_path) / "log.jsonl"
    path.write_text('{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 1e-07}\n{"step": 3}\n{"st')
    log = json_lines.JsonLines(path, ROWS)
    log.replace(log.rows_until(2))
    assert path.read_text() == '{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 1e-07}\n'
    log.replace(log.rows_until(0))
    assert path.read_text() == ""


def test_the_last_rows_are_read_from_the_end(tmp_path):
    path = epath.Path(tmp_path / "log.jsonl")
    assert json_lines.read_last(path, 3, ROWS) == []
    rows = [{"step": n, "text": "x" * (n * 37 % 5000)} for n in range(60)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for ending in ("", '{"step": 61'):
        path.write_text(text + ending)
        for count in (1, 2, 7, 59, 60, 61):
            assert json_lines.read_last(path, count, ROWS) == rows[-count:]
    path.write_text("")
    assert json_lines.read_last(path, 1, ROWS) == []


@pytest.mark.parametrize("line", [b'{"step": 2, gar', b"\xff\xfe", b"[]", b"3", b"[" * 20_000, b""])
def test_a_damaged_line_is_named_or_left_out_if_asked_for(tmp_path, line):
    path = epath.Path(tmp_path / "log.jsonl")
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(Damaged, match=r"log.jsonl, line 2 is damaged.*; restore it$"):
        json_lines.read(path, ROWS)
    with pytest.raises(Damaged, match=r"log.jsonl, line 2 from its end is damaged"):
        json_lines.read_last(path, 2, ROWS)
    assert [row["step"] for row in json_lines.read(path, ROWS, skip_damaged=True)] == [1, 3]
    assert json_lines.read_last(path, 1, ROWS) == [{"step": 3}]


def test_a_folder_or_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(Damaged, match="no regular file"):
            json_lines.read(epath.Path(tmp_path / name), ROWS)
        with pytest.raises(Damaged, match="no regular file"):
            json_lines.read_last(epath.Path(tmp_path / name), 1, ROWS)
