import zipfile

import numpy as np

from gpicl_flax.tasks.datasets import class_folder, files, idx
from gpicl_flax.tasks.datasets.raw import RawSplit


def test_npz_is_read_as_it_is(tmp_path, raw, arrays, assert_same):
    np.savez(tmp_path / "data.npz", **arrays)
    assert_same(files.read_dataset(tmp_path / "data.npz"), raw)
    np.savez(tmp_path / "keras.npz", **dict(zip(files.KERAS_KEYS, arrays.values(), strict=True)))
    assert_same(files.read_dataset(tmp_path / "keras.npz"), raw)


def test_one_array_is_read_from_any_kind_of_file(tmp_path, raw, arrays, write_idx):
    write_idx(tmp_path)
    images = arrays["train_images"]
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "one.npz", images)
    np.savez(tmp_path / "named.npz", images=images, labels=arrays["train_labels"])
    for name in ("images.npy", "one.npz", "named.npz", idx.FILES[0]):
        np.testing.assert_array_equal(files.read_array(tmp_path / name, "images"), images)
    np.testing.assert_array_equal(files.read_array(tmp_path / "named.npz", "labels"), arrays["train_labels"])


def test_what_is_missing_is_named(tmp_path, arrays, refused):
    refused(lambda: files.read_dataset(tmp_path / "none.npz"), "none.npz", "no such file")
    refused(lambda: files.read_dataset(tmp_path / "none"), "no such")
    refused(
        lambda: files.read_dataset(tmp_path), "neither idx files (train-images-idx3-ubyte", "nor folders train and test"
    )
    (tmp_path / idx.FILES[2]).write_text("")
    refused(lambda: files.read_dataset(tmp_path), "holds no train-images-idx3-ubyte")
    refused(lambda: files.read_array(tmp_path, "images"), "is a folder, not a file")
    refused(lambda: files.read_array(tmp_path / "none.npy", "images"), "none.npy: no such file")
    refused(lambda: class_folder.read(tmp_path), "no folders of PNG or JPEG images")
    del arrays["test_labels"]
    np.savez(tmp_path / "data.npz", **arrays)
    refused(lambda: files.read_dataset(tmp_path / "data.npz"), "no array named test_labels", "train_images")
    refused(lambda: files.read_array(tmp_path / "data.npz", "images"), "needed is one array, or one named images")


def test_pickled_objects_are_never_loaded(tmp_path, arrays, refused):
    arrays["test_labels"] = np.array([{"a": 1}] * 20, dtype=object)
    np.savez(tmp_path / "data.npz", **arrays)
    refused(lambda: files.read_dataset(tmp_path / "data.npz"), "Python objects")
    np.save(tmp_path / "labels.npy", arrays["test_labels"])
    refused(lambda: files.read_array(tmp_path / "labels.npy", "labels"), "Python objects")


def test_damaged_files_are_refused(tmp_path, arrays, write_idx, refused):
    np.savez(tmp_path / "data.npz", **arrays)
    data = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(data[: len(data) // 2])
    refused(lambda: files.read_dataset(tmp_path / "data.npz"), "not a readable .npz")
    (tmp_path / "text.npz").write_text("hello world")
    refused(lambda: files.read_dataset(tmp_path / "text.npz"), "not a zip archive")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as file:
        for name in files.NPZ_KEYS:
            file.writestr(name, "no array")
    refused(lambda: files.read_dataset(tmp_path / "other.npz"), "other files than arrays")
    np.save(tmp_path / "images.npy", arrays["train_images"])
    (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:-9])
    refused(lambda: files.read_array(tmp_path / "images.npy", "images"), "not a readable npy file")
    header = b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1', \x00"
    for data in (b"hello world", header, (tmp_path / "other.npz").read_bytes()):
        (tmp_path / "images.npy").write_bytes(data)
        refused(lambda: files.read_array(tmp_path / "images.npy", "images"), "not a readable npy file")


def test_train_and_test_must_have_the_same_classes(refused):
    split = RawSplit(np.zeros((2, 3, 3), np.uint8), np.arange(2))
    refused(lambda: files.join((split, ("cat", "dog")), (split, ("cat", "fox"))), "dog, fox in one of them only")
