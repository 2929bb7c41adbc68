import json

import pytest

from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder, write_atomically, write_json, write_together


def test_paths_are_absolute_unless_they_are_remote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(RunFolder("runs/one")) == str(tmp_path / "runs/one")
    assert str(RunFolder("gs://bucket/runs/one").metrics) == "gs://bucket/runs/one/metrics.jsonl"


@pytest.mark.parametrize("marker", [DONE, DIVERGED])
def test_a_run_ends_with_a_marker(tmp_path, marker):
    folder = RunFolder(tmp_path / "run")
    assert folder.ended is None
    folder.mark(marker, "why")
    assert folder.ended == marker
    assert (folder.path / marker).read_text() == "why"


def test_the_latest_evaluation_is_that_of_the_highest_step(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest_evaluation() is None
    for step in (900, 10_000, 2_000):
        write_json(folder.evaluation(step), {"step": step, "curves": []})
    assert folder.latest_evaluation() == {"step": 10_000, "curves": []}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    write_json(folder.run_info, {"a": 1})
    monkeypatch.setattr(type(folder.run_info), "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(folder.run_info, "half of it")
    assert json.loads(folder.run_info.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_files_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path).path
    write_together(folder, {"a": b"1", "b": b"2"})
    write_bytes = type(folder).write_bytes

    def write_first(path, data):
        if "b" in path.name:
            raise OSError("disk full")
        write_bytes(path, data)

    monkeypatch.setattr(type(folder), "write_bytes", write_first)
    with pytest.raises(OSError, match="disk full"):
        write_together(folder, {"a": b"3", "b": b"4", "c": b"5"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "b": b"2"}
