import logging

import numpy as np
import pytest

from gpicl_flax.tasks.datasets import idx, tfds_store
from gpicl_flax.tasks.datasets.importing import import_dataset


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "tfds")


def test_complete_files_are_imported(tmp_path, store, raw, arrays, write_idx, assert_same):
    np.savez(tmp_path / "data.npz", **arrays)
    write_idx(tmp_path, zipped=True)
    for name, path in (("from_npz", tmp_path / "data.npz"), ("from_idx", tmp_path)):
        import_dataset(name, [str(path)], data_dir=store)
        assert_same(tfds_store.load(name, store), raw)


def test_arrays_are_imported_with_their_labels(tmp_path, store, raw, arrays, write_idx, assert_same):
    write_idx(tmp_path)
    images, labels, test_images, test_labels = (str(tmp_path / name) for name in idx.FILES)
    import_dataset("both", [images, test_images], [labels, test_labels], data_dir=store)
    assert_same(tfds_store.load("both", store), raw)
    import_dataset("one", [images], [labels], test_fraction=0.2, data_dir=store)
    train, test = tfds_store.load("one", store)[:2]
    assert (len(train.labels), len(test.labels)) == (24, 6)
    pairs = sorted((bytes(x), int(y)) for split in (train, test) for x, y in zip(*split, strict=True))
    assert pairs == sorted((bytes(x), int(y)) for x, y in zip(*raw.train, strict=True))


def test_class_folders_are_imported_with_their_names(tmp_path, store, raw, write_class_folder):
    names = [f"class {letter}" for letter in "abcdefghij"]
    for split in ("train", "test"):
        inputs, labels = getattr(raw, split)
        write_class_folder(tmp_path / split, inputs[..., 0], labels, names)
    import_dataset("joined", [str(tmp_path)], data_dir=store)
    import_dataset("two", [str(tmp_path / "train"), str(tmp_path / "test")], data_dir=store)
    import_dataset("divided", [str(tmp_path / "train")], test_fraction=0.4, data_dir=store)
    for name in ("joined", "two", "divided"):
        found = tfds_store.load(name, store)
        assert found.class_names == tuple(names)
        assert len(found.train.labels) == (18 if name == "divided" else 30)


@pytest.mark.parametrize(
    ("images", "labels", "fraction", "words"),
    [
        (["a", "b"], ["c"], None, ["2 path(s) of images but 1 of labels"]),
        (["a", "b", "c"], [], None, ["paths of training and test images"]),
        (["a"], ["b"], None, ["paths of training and test images", "test fraction"]),
        (["a", "b"], [], 0.5, ["one path of images"]),
        (["a"], [], 1.5, ["between 0 and 1, not 1.5"]),
        (["a", "b"], [], None, ["a is no folder of class folders"]),
        (["none.npz"], [], None, ["none.npz", "no such file"]),
    ],
)
def test_paths_that_do_not_fit_are_refused(store, tmp_path, images, labels, fraction, words, refused):
    refused(lambda: import_dataset("mine", images, labels, test_fraction=fraction, data_dir=store), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_labels": np.linspace(0, 9, 30)}, ["integers", "float64"]),
        ({"test_labels": np.arange(20) - 1}, ["negative"]),
        ({"train_labels": np.arange(30) * 1000}, ["largest label is 29000", "only 50 examples"]),
        ({"train_labels": np.zeros(30, int)}, ["every label is 0"]),
        ({"test_labels": np.zeros(19, int)}, ["20 inputs but 19 labels"]),
        ({"train_labels": np.zeros(30, "timedelta64[s]")}, ["integers", "timedelta64"]),
        ({"train_images": np.full((30, 5, 4), 7, np.uint8)}, ["every input of the train split has the value 7"]),
        ({"test_images": np.zeros((20, 20), np.float32)}, ["train and test examples differ"]),
        ({"test_images": np.zeros((20, 6, 4), np.uint8)}, ["[5, 4, 1]", "[6, 4, 1]", "one size"]),
        ({"train_images": np.zeros((30, 5, 4), np.float64)}, ["float64"]),
        ({"train_images": np.zeros((0, 5, 4), np.uint8), "train_labels": np.zeros(0, int)}, ["empty"]),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_and_nothing_is_written(
    tmp_path, store, arrays, changes, words, refused
):
    np.savez(tmp_path / "data.npz", **arrays | changes)
    refused(lambda: import_dataset("mine", [str(tmp_path / "data.npz")], data_dir=store), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_name_is_refused_before_anything_is_read(tmp_path, store, refused):
    refused(lambda: import_dataset("mnist", ["no/such/file"], data_dir=store), "known already")
    refused(lambda: import_dataset("../mine", ["no/such/file"], data_dir=store), "a dataset's name")


def test_what_looks_wrong_is_a_warning(tmp_path, store, arrays, caplog):
    arrays["test_images"][0] = arrays["train_images"][0]
    np.savez(tmp_path / "data.npz", **arrays)
    import_dataset("mine", [str(tmp_path / "data.npz")], data_dir=store)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["dataset 'mine': 1 test example(s) are in the train split as well"]
