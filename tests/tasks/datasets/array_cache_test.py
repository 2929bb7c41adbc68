import numpy as np
import pytest

from gpicl_flax.runtime import caches
from gpicl_flax.tasks.datasets import array_cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "shard").write_text("pixels")
    return folder


def cached_files():
    return list((caches.folder() / "arrays").iterdir()) if (caches.folder() / "arrays").exists() else []


def test_what_is_saved_is_loaded_until_the_folder_changes(folder, raw):
    assert array_cache.load(folder, "train") is None
    array_cache.save(folder, "train", raw.train)
    found = array_cache.load(folder, "train")
    np.testing.assert_array_equal(found.inputs, raw.train.inputs)
    np.testing.assert_array_equal(found.labels, raw.train.labels)
    assert found.inputs.dtype == np.uint8 and found.labels.dtype == raw.train.labels.dtype
    (folder / "shard").write_text("others")  # of the same size, at another time
    assert array_cache.load(folder, "train") is None
    array_cache.save(folder, "train", raw.train)
    (folder / "more").write_text("")
    assert array_cache.load(folder, "train") is None
    array_cache.save(folder, "train", raw.train)
    assert len(cached_files()) == 1  # one file a split, whatever happens to it


def test_each_split_has_a_file_that_depends_on_its_own_files_alone(folder, raw):
    for split in ("train", "test"):
        (folder / f"digits-{split}.array_record-00000-of-00001").write_text(split)
    for split in ("train", "test"):
        array_cache.save(folder, split, getattr(raw, split))
    assert len(cached_files()) == 2
    (folder / "digits-test.array_record-00000-of-00001").write_text("other")
    assert array_cache.load(folder, "test") is None
    np.testing.assert_array_equal(array_cache.load(folder, "train").inputs, raw.train.inputs)


def test_a_damaged_cache_is_none(folder, raw):
    array_cache.save(folder, "train", raw.train)
    (file,) = cached_files()
    data = file.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"hello"):
        file.write_bytes(damaged)
        assert array_cache.load(folder, "train") is None


def test_a_cache_that_cannot_be_written_is_done_without(folder, raw, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    array_cache.save(folder, "train", raw.train)
    assert cached_files() == [] and array_cache.load(folder, "train") is None
    (caches.folder() / "arrays").rmdir()
    (caches.folder() / "arrays").write_text("a file in its place")
    array_cache.save(folder, "train", raw.train)
    assert array_cache.load(folder, "train") is None
