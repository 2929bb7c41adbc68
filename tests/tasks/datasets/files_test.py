import zipfile

import numpy as np
import pytest
from PIL import Image

from gpicl_flax.tasks.datasets import files
from gpicl_flax.tasks.datasets.raw import RawSplit


def test_npz_is_read_as_it_is(tmp_path, raw, arrays, assert_same):
    np.savez(tmp_path / "data.npz", **arrays)
    assert_same(files.read_dataset(tmp_path / "data.npz"), raw)
    np.savez(tmp_path / "keras.npz", **dict(zip(files.KERAS_KEYS, arrays.values(), strict=True)))
    assert_same(files.read_dataset(tmp_path / "keras.npz"), raw)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_is_read_as_it_is(tmp_path, raw, write_idx, assert_same, zipped):
    write_idx(tmp_path, zipped)
    assert_same(files.read_dataset(tmp_path), raw)


def test_class_folders_are_read_in_the_order_of_their_names(tmp_path, raw, write_class_folder):
    names = [f"class {letter}" for letter in "abcdefghij"]
    for split in ("train", "test"):
        inputs, labels = getattr(raw, split)
        write_class_folder(tmp_path / split, inputs[..., 0], labels, names)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / names[0] / "notes.txt").write_text("no image")
    found = files.read_dataset(tmp_path)
    assert found.class_names == tuple(names)
    order = np.argsort(raw.train.labels, kind="stable")
    np.testing.assert_array_equal(found.train.inputs, raw.train.inputs[order][..., 0])
    np.testing.assert_array_equal(found.train.labels, raw.train.labels[order])


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (1, 5, 4)), ("L", (1, 5, 4)), ("P", (1, 5, 4, 3)), ("RGB", (1, 5, 4, 3))]
)
def test_images_are_grey_or_colour(tmp_path, mode, shape):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((5, 4, 3), 255, np.uint8)).convert(mode).save(tmp_path / "a" / "1.png")
    split, _ = files.read_class_folder(tmp_path)
    assert split.inputs.shape == shape and (split.inputs == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_images_that_would_lose_something_are_refused(tmp_path, refused, mode):
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.arange(20, dtype=np.uint16).reshape(5, 4) * 3000)
    (image if mode == "I;16" else image.convert("L").convert(mode)).save(tmp_path / "a" / "1.png")
    refused(lambda: files.read_class_folder(tmp_path), f"1.png: an image of mode {mode}")


def test_other_files_are_left_out_and_counted(tmp_path, caplog, refused):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((5, 4), np.uint8)).save(tmp_path / name / "1.png")
    (tmp_path / "a" / "._1.png").write_text("of a file system")
    (tmp_path / "a" / "2.bmp").write_text("")
    assert len(files.read_class_folder(tmp_path)[0].labels) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 1 file(s) that are no PNG or JPEG images were left out"
    ]
    (tmp_path / " a").mkdir()
    refused(lambda: files.read_class_folder(tmp_path), "names of classes cannot begin or end with a space", "' a'")


def test_one_array_is_read_from_any_kind_of_file(tmp_path, raw, arrays, write_idx):
    write_idx(tmp_path)
    images = arrays["train_images"]
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "one.npz", images)
    np.savez(tmp_path / "named.npz", images=images, labels=arrays["train_labels"])
    for name in ("images.npy", "one.npz", "named.npz", files.IDX_FILES[0]):
        np.testing.assert_array_equal(files.read_array(tmp_path / name, "images"), images)
    np.testing.assert_array_equal(files.read_array(tmp_path / "named.npz", "labels"), arrays["train_labels"])


def test_what_is_missing_is_named(tmp_path, arrays, refused):
    refused(lambda: files.read_dataset(tmp_path / "none.npz"), "none.npz", "no such file")
    refused(lambda: files.read_dataset(tmp_path / "none"), "no such")
    refused(
        lambda: files.read_dataset(tmp_path), "neither idx files (train-images-idx3-ubyte", "nor folders train and test"
    )
    (tmp_path / files.IDX_FILES[2]).write_text("")
    refused(lambda: files.read_dataset(tmp_path), "holds no train-images-idx3-ubyte")
    refused(lambda: files.read_array(tmp_path, "images"), "is a folder, not a file")
    refused(lambda: files.read_array(tmp_path / "none.npy", "images"), "none.npy: no such file")
    refused(lambda: files.read_class_folder(tmp_path), "no folders of PNG or JPEG images")
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


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files_are_refused(tmp_path, write_idx, zipped, refused):
    write_idx(tmp_path, zipped)
    path = tmp_path / f"{files.IDX_FILES[0]}{'.gz' if zipped else ''}"
    path.write_bytes(path.read_bytes()[:-7])
    refused(lambda: files.read_dataset(tmp_path), "not a readable idx file", path.name)
    path.write_bytes(b"hello world")
    refused(lambda: files.read_dataset(tmp_path), "not a readable idx file")


def test_images_that_do_not_go_together_are_refused(tmp_path, raw, write_class_folder, refused):
    write_class_folder(tmp_path, raw.train.inputs[..., 0], raw.train.labels, "abcdefghij")
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "c" / "x.png")
    refused(lambda: files.read_class_folder(tmp_path), "one size", "[5, 4]", "[6, 4]", "x.png")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "c" / "x.png")
    refused(lambda: files.read_class_folder(tmp_path), "all grey or all colour")
    (tmp_path / "c" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nhello")
    refused(lambda: files.read_class_folder(tmp_path), "x.png: not a readable image")
    good = tmp_path / "a"
    data = next(good.iterdir()).read_bytes()
    (tmp_path / "c" / "x.png").write_bytes(data[:-30])
    refused(lambda: files.read_class_folder(tmp_path), "x.png: not a readable image")


def test_train_and_test_must_have_the_same_classes(refused):
    split = RawSplit(np.zeros((2, 3, 3), np.uint8), np.arange(2))
    refused(lambda: files.join((split, ("cat", "dog")), (split, ("cat", "fox"))), "dog, fox in one of them only")
