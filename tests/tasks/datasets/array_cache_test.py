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


def test_what_is_saved_is_loaded_until_the_folder_changes(folder, raw, assert_same):
    assert array_cache.load(folder) is None
    array_cache.save(folder, raw[:2])
    train, test = array_cache.load(folder)
    assert_same(raw._replace(train=train, test=test), raw)
    assert train.inputs.dtype == np.uint8 and train.labels.dtype == raw.train.labels.dtype
    (folder / "shard").write_text("others")  # of the same size, at another time
    assert array_cache.load(folder) is None
    array_cache.save(folder, raw[:2])
    (folder / "more").write_text("")
    assert array_cache.load(folder) is None
    array_cache.save(folder, raw[:2])
    assert len(cached_files()) == 1  # one file a folder, whatever happens to it


def test_a_damaged_cache_is_none(folder, raw):
    array_cache.save(folder, raw[:2])
    (file,) = cached_files()
    data = file.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"hello"):
        file.write_bytes(damaged)
        assert array_cache.load(folder) is None


def test_a_cache_that_cannot_be_written_is_done_without(folder, raw, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    array_cache.save(folder, raw[:2])
    assert cached_files() == [] and array_cache.load(folder) is None
    (caches.folder() / "arrays").rmdir()
    (caches.folder() / "arrays").write_text("a file in its place")
    array_cache.save(folder, raw[:2])
    assert array_cache.load(folder) is None
