"""Folders of images: which files are the images of which class, and what is said of the others."""

import os

import numpy as np
import pytest
from PIL import Image

from gpicl_flax.tasks.datasets import class_folder, files


@pytest.fixture
def save(tmp_path):
    """(path, value, **options) -> writes a grey image of 5 x 4 pixels, or of another shape."""

    def save(path, value=0, shape=(5, 4), **options):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / path, **options)

    return save


@pytest.fixture
def warnings(caplog):
    """() -> the warnings so far."""
    return lambda: [record.getMessage() for record in caplog.records]


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


def test_images_that_do_not_go_together_are_refused(tmp_path, raw, write_class_folder, refused):
    write_class_folder(tmp_path, raw.train.inputs[..., 0], raw.train.labels, "abcdefghij")
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "c" / "x.png")
    refused(lambda: class_folder.read(tmp_path), "one size", "[5, 4]", "[6, 4]", "x.png")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "c" / "x.png")
    refused(lambda: class_folder.read(tmp_path), "all grey or all colour")
    (tmp_path / "c" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nhello")
    refused(lambda: class_folder.read(tmp_path), "x.png: not a readable image")
    good = tmp_path / "a"
    data = next(good.iterdir()).read_bytes()
    (tmp_path / "c" / "x.png").write_bytes(data[:-30])
    refused(lambda: class_folder.read(tmp_path), "x.png: not a readable image")


def test_what_is_left_out_is_counted_by_kind_and_folder(tmp_path, save, warnings):
    for name in ("a/1.png", "a/2.JPEG", "b/1.jpg", "a/3.webp", "a/4.WEBP", "b/2.bmp", "preview.png"):
        save(name)
    for name in ("a/._1.png", "a/.DS_Store", "b/Thumbs.db", "b/desktop.ini"):  # of file systems
        (tmp_path / name).write_text("")
    (tmp_path / "b" / "notes").write_text("")
    split, _ = class_folder.read(tmp_path)
    assert split.labels.tolist() == [0, 0, 1]
    assert warnings() == [
        f"{tmp_path}: 5 file(s) that are no PNG or JPEG images of a class were left out: 2 .webp in a, 1 .bmp in b, 1 "
        f"without suffix in b, 1 .png in {tmp_path.name}"
    ]


@pytest.mark.parametrize("name", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN", "lost+found"])
def test_folders_of_systems_are_no_classes(tmp_path, save, warnings, name):
    for folder in ("a", "b", name, f"a/{name}"):
        save(f"{folder}/1.png")
    split, names = class_folder.read(tmp_path)
    assert names == ("a", "b") and split.labels.tolist() == [0, 1]
    assert not warnings()


def test_images_in_a_folder_within_a_class_are_refused(tmp_path, save, refused):
    save("a/1.png")
    (tmp_path / "a" / "sub" / "notes").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "notes" / "1.txt").write_text("")
    class_folder.read(tmp_path)
    save("a/sub/deep/1.png")
    save("a/sub/2.gif")
    refused(lambda: class_folder.read(tmp_path), "sub: holds 2 image(s), in a folder within the class 'a'")


def test_links_that_go_in_a_circle_end(tmp_path, save, refused):
    save("a/1.png")
    (tmp_path / "a" / "self").symlink_to("self")
    assert len(class_folder.read(tmp_path)[0].labels) == 1
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    refused(lambda: class_folder.read(tmp_path), "up: holds 1 image(s)")


def test_what_is_no_file_is_refused(tmp_path, save, refused):
    save("a/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    refused(lambda: class_folder.read(tmp_path), "2.png: is a pipe, not a file")
    (tmp_path / "a" / "2.png").unlink()
    (tmp_path / "a" / "2.png").symlink_to("none")
    refused(lambda: class_folder.read(tmp_path), "2.png: no such file")


def test_names_of_classes(tmp_path, save, warnings, refused):
    for name in ("a", "A", "b", "e\u0301"):
        save(f"{name}/1.png")
    (tmp_path / "c").mkdir()
    assert class_folder.read(tmp_path)[1] == ("A", "a", "b", "c", "\xe9")
    assert warnings() == [
        f"{tmp_path}: names of classes differ only in case: 'A' and 'a'",
        f"{tmp_path}: no image of class c",
    ]
    save("\xe9/1.png")
    refused(lambda: class_folder.read(tmp_path), "two class folders have the name '\xe9'")
    (tmp_path / "\xe9" / "1.png").unlink()
    (tmp_path / "\xe9").rmdir()
    for name in (b"b ", b"b\r", b"\xff"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        refused(lambda: class_folder.read(tmp_path), "names of classes cannot")
        os.rmdir(folder)


def test_remarks_are_one_line_for_all_images(tmp_path, save, warnings):
    turned = Image.Exif()
    turned[0x112] = 6
    save("a/1.jpg", shape=(5, 4))
    for name in ("a/2.jpg", "b/1.jpg"):
        save(name, shape=(4, 5), exif=turned)
    assert class_folder.read(tmp_path)[0].inputs.shape == (3, 5, 4)
    assert warnings() == [f"{tmp_path}: 2 image(s) were turned upright, as their EXIF data say, such as a/2.jpg"]


def test_folders_beside_train_and_test_are_left_out(tmp_path, save, warnings):
    for name in ("train/a/1.png", "test/a/1.png", "valid/a/1.png", "__MACOSX/1.png"):
        save(name)
    files.read_dataset(tmp_path)
    assert warnings() == [f"{tmp_path}: only train and test are read; left out: valid"]
