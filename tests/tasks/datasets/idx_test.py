"""Folders of idx files, as they are downloaded."""

import gzip
import os

import numpy as np
import pytest

from gpicl_flax.tasks.datasets import files, idx


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_is_read_as_it_is(tmp_path, raw, write_idx, assert_same, zipped):
    write_idx(tmp_path, zipped)
    assert_same(files.read_dataset(tmp_path), raw)


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files_are_refused(tmp_path, write_idx, zipped, refused):
    write_idx(tmp_path, zipped)
    path = tmp_path / f"{idx.FILES[0]}{'.gz' if zipped else ''}"
    path.write_bytes(path.read_bytes()[:-7])
    refused(lambda: files.read_dataset(tmp_path), "not a readable idx file", path.name)
    path.write_bytes(b"hello world")
    refused(lambda: files.read_dataset(tmp_path), "not a readable idx file")


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_names_of_kaggle_are_read(tmp_path, raw, write_idx, assert_same, dotted, nested):
    write_idx(tmp_path)
    for name in idx.FILES:
        path = tmp_path / name
        other = name.replace("-idx", ".idx") if dotted else name
        path.rename(tmp_path / "moved")
        if nested:
            (tmp_path / other).mkdir()
        (tmp_path / "moved").rename(tmp_path / other / other if nested else tmp_path / other)
    assert_same(files.read_dataset(tmp_path), raw)


def test_a_gzipped_file_needs_no_suffix(tmp_path, raw, write_idx, assert_same):
    write_idx(tmp_path)
    for name in idx.FILES:
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert_same(files.read_dataset(tmp_path), raw)
    np.testing.assert_array_equal(files.read_array(tmp_path / idx.FILES[1], "labels"), raw.train.labels)
    write_idx(tmp_path)
    (tmp_path / "plain.gz").write_bytes((tmp_path / idx.FILES[1]).read_bytes())
    np.testing.assert_array_equal(files.read_array(tmp_path / "plain.gz", "labels"), raw.train.labels)


def test_other_names_are_named(tmp_path, write_idx, refused):
    write_idx(tmp_path)
    (tmp_path / idx.FILES[3]).rename(tmp_path / "test_labels.idx")
    words = "holds no t10k-labels-idx1-ubyte", "if test_labels.idx is this file, rename it"
    refused(lambda: files.read_dataset(tmp_path), *words)
    for name in idx.FILES[:3]:
        (tmp_path / name).rename(tmp_path / f"emnist-{name}")
    words = "holds neither idx files", "if emnist-train-images-idx3-ubyte is this file, rename it"
    refused(lambda: files.read_dataset(tmp_path), *words)


def test_a_pipe_is_refused(tmp_path, write_idx, refused):
    write_idx(tmp_path)
    (tmp_path / idx.FILES[0]).unlink()
    for name in (idx.FILES[0], "1.npz", "1.npy"):
        os.mkfifo(tmp_path / name)
        refused(lambda name=name: files.read_array(tmp_path / name, "images"), f"{name}: is a pipe, not a file")
    refused(lambda: files.read_dataset(tmp_path), f"{idx.FILES[0]}: is a pipe, not a file")
    refused(lambda: files.read_dataset(tmp_path / "1.npz"), "1.npz: is a pipe, not a file")
