import json

from etils import epath

from gpicl_flax.records import json_lines


def test_rows_are_written_on_flush_and_appended(tmp_path):
    path = epath.Path(tmp_path) / "folder" / "log.jsonl"
    log = json_lines.JsonLines(path)
    log.append({"step": 1})
    assert json_lines.read(path) == []
    log.flush()
    log.append({"step": 2, "loss": 0.1 + 0.2})
    log.flush()
    log.flush()
    assert json_lines.read(path) == [{"step": 1}, {"step": 2, "loss": 0.1 + 0.2}]


def test_a_row_that_was_cut_off_is_not_read(tmp_path):
    path = epath.Path(tmp_path) / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in json_lines.read(path)] == [1, 2]


def test_rows_after_a_step_are_dropped_and_the_rest_stays_to_the_letter(tmp_path):
    path = epath.Path(tmp_path) / "log.jsonl"
    path.write_text('{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 1e-07}\n{"step": 3}\n{"st')
    json_lines.JsonLines(path).drop_after(2)
    assert path.read_text() == '{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 1e-07}\n'
    json_lines.JsonLines(path).drop_after(0)
    assert path.read_text() == ""


def test_the_last_rows_are_read_from_the_end(tmp_path):
    path = epath.Path(tmp_path / "log.jsonl")
    assert json_lines.read_last(path, 3) == []
    rows = [{"step": n, "text": "x" * (n * 37 % 5000)} for n in range(60)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for ending in ("", '{"step": 61'):
        path.write_text(text + ending)
        for count in (1, 2, 7, 59, 60, 61):
            assert json_lines.read_last(path, count) == rows[-count:]
    path.write_text("")
    assert json_lines.read_last(path, 1) == []
