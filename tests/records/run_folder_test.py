import json
import os

import pytest

from gpicl_flax.errors import Damaged
from gpicl_flax.records import run_folder
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

    def open_first(path, mode):
        if path.name.startswith(".b"):
            raise OSError("disk full")
        return open(path, mode)

    monkeypatch.setattr(run_folder, "open", open_first, raising=False)
    with pytest.raises(OSError, match="disk full"):
        write_together(folder, {"a": b"3", "b": b"4", "c": b"5"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "b": b"2"}


def test_a_write_does_not_follow_a_symlink(tmp_path):
    folder, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder.path.mkdir()
    for name in (".run.json.tmp", "run.json"):
        os.symlink(elsewhere, folder.path / name)
    write_json(folder.run_info, {"model": "LSTM"})
    assert elsewhere.read_text() == "mine" and json.loads(folder.run_info.read_text()) == {"model": "LSTM"}
    assert not os.path.islink(folder.run_info)


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.evaluation(4), {"step": 4, "curves": []})
    (folder.path / ".run.json.0123abcd.tmp").write_text("{")
    (folder.evaluations / ".step_00000004.json.0123abcd.tmp").write_text("{")
    (folder.checkpoints / "8.orbax-checkpoint-tmp").mkdir(parents=True)
    (folder.checkpoints / "4").mkdir()
    folder.remove_leftovers()
    assert [path.name for path in folder.evaluations.iterdir()] == ["step_00000004.json"]
    assert len(list(folder.checkpoints.iterdir())) == 2  # another process may be writing it
    folder.mark(DONE)
    folder.remove_leftovers()
    assert [path.name for path in folder.checkpoints.iterdir()] == ["4"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["DONE", "checkpoints", "eval"]


WRONG = ["", "{", "[]", "3", '{"steps": true}', '{"steps": "3"}', '{"base_dataset": {}}', "[" * 99_999]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, text):
    folder = RunFolder(tmp_path)
    folder.run_info.write_text(text)
    with pytest.raises(Damaged, match=r"run\.json is damaged \(.*\); restore it from a copy"):
        folder.read_run_info()


def test_what_is_no_file_or_no_text_is_damaged(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(Damaged, match="is missing"):
        folder.read_run_info()
    folder.run_info.write_bytes(b"\xff\xfe{}")
    with pytest.raises(Damaged, match="byte 0 is no UTF-8"):
        folder.read_run_info()
    folder.run_info.unlink()
    os.mkfifo(folder.run_info)  # a reader would wait for ever
    with pytest.raises(Damaged, match="no regular file"):
        folder.read_run_info()
    folder.config.mkdir()
    with pytest.raises(Damaged, match="no regular file"):
        folder.read_config()


@pytest.mark.parametrize("name", ["accuracy_low", "accuracy_high", "loss"])
def test_curves_of_uneven_lists_are_damaged(tmp_path, name):
    folder = RunFolder(tmp_path)
    curve = {"tasks": "seen", "base_dataset": "digits"}
    curve |= {key: [0.1, 0.2] for key in ("accuracy", "accuracy_low", "accuracy_high", "loss")}
    write_json(folder.evaluation(4), {"step": 4, "curves": [curve]})
    assert folder.latest_evaluation()["curves"] == [curve]
    write_json(folder.evaluation(4), {"step": 4, "curves": [curve | {name: [0.1]}]})
    with pytest.raises(Damaged, match="several lengths"):
        folder.latest_evaluation()


@pytest.mark.parametrize(
    "text",
    [
     "NaN", "[Infinity, -Infinity]", "-0", "-0.0", "1E400", "5e-324", "9007199254740993.0",
     "123456789012345678901234567890", '{"a": 1, "a": 2}', '"\\ud800"', '"\\ud83d\\ude00 é"', " [1, null] ",
     "0.1", "18446744073709551616",
    ],
)  # fmt: skip
def test_json_has_the_value_that_pythons_own_reader_gives(text):
    assert repr(run_folder.parse_json(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "{", "[1,]", "01", "'a'", '"\x01"', "[" * 100_000])
def test_no_json_is_refused_in_the_same_words(text):
    with pytest.raises(ValueError, match="^(no JSON at character \\d+|nested too deeply)$"):
        run_folder.parse_json(text)
