import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.tasks.datasets import tfds_store
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit


def leftovers(folder: pathlib.Path) -> list[str]:
    return [str(path) for path in folder.rglob("*")]


def test_what_is_written_is_read_back_pixel_for_pixel_and_in_order(tmp_path, raw, assert_same):
    path = tfds_store.write("my_digits", raw, str(tmp_path / "new" / "folder"), description="some digits")
    assert path == tmp_path / "new" / "folder" / "my_digits" / "1.0.0"
    found = tfds_store.load("my_digits", str(tmp_path / "new" / "folder"))
    assert_same(found, raw)
    assert found.class_names == tuple("0123456789")
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["my_digits"]
    # TFDS itself opens it, and nothing of this needed TensorFlow.
    builder = tfds.builder_from_directory(str(path))
    assert builder.info.description == "some digits" and builder.info.splits["train"].num_examples == 30
    assert builder.info.features["image"].shape == (5, 4, 1)
    example = builder.as_data_source(split="test")[3]
    np.testing.assert_array_equal(example["image"], raw.test.inputs[3])
    assert example["label"] == raw.test.labels[3]
    assert "tensorflow" not in sys.modules


def test_colour_images_class_names_and_features_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    colour = RawDataset(*(RawSplit(rng.integers(0, 256, (6, 4, 3, 3), dtype=np.uint8), np.arange(6) % 2) for _ in "ab"),
                        class_names=("cat", "dog"))  # fmt: skip
    tfds_store.write("pets", colour, str(tmp_path), description="")
    found = tfds_store.load("pets", str(tmp_path))
    np.testing.assert_array_equal(found.train.inputs, colour.train.inputs)
    assert found.class_names == ("cat", "dog")
    features = RawDataset(*(RawSplit(rng.normal(size=(7, 33)).astype(np.float32), np.arange(7)) for _ in "ab"))
    tfds_store.write("pets_features", features, str(tmp_path), description="")
    found = tfds_store.load("pets_features", str(tmp_path))
    np.testing.assert_array_equal(found.test.inputs, features.test.inputs)
    assert found.test.inputs.dtype == np.float32


def test_images_of_several_sizes_are_read_as_a_list(tmp_path):
    class ManySizes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "many_sizes"

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in ("train", "test")}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"image": Image.fromarray(np.full((2 + i, 3), i, np.uint8)), "label": i}

    ManySizes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    inputs = tfds_store.load("many_sizes", str(tmp_path)).train.inputs
    assert [image.shape for image in inputs] == [(2, 3, 1), (3, 3, 1), (4, 3, 1)]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "digits", "random"])
def test_names_that_are_known_already_are_refused(tmp_path, raw, name, refused):
    refused(
        lambda: tfds_store.write(name, raw, str(tmp_path / "x"), description=""), name, "known already", f"my_{name}"
    )
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "Upper", "", ".", "a-b", "1a", "a\n"])
def test_names_that_are_no_names_are_refused(tmp_path, raw, name, refused):
    refused(lambda: tfds_store.write(name, raw, str(tmp_path / "x"), description=""), "a dataset's name is made of")
    assert leftovers(tmp_path) == []


def test_a_dataset_is_never_overwritten(tmp_path, raw, assert_same, refused):
    tfds_store.write("mine", raw, str(tmp_path), description="")
    other = raw._replace(train=RawSplit(255 - raw.train.inputs, raw.train.labels))
    refused(lambda: tfds_store.write("mine", other, str(tmp_path), description=""), "exists already")
    assert_same(tfds_store.load("mine", str(tmp_path)), raw)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError("writer")])
def test_a_write_that_is_interrupted_or_fails_leaves_nothing(tmp_path, raw, monkeypatch, error):
    original, calls = Image.fromarray, []

    def fails(image):
        calls.append(image)
        if len(calls) == 35:  # in the second split
            raise error
        return original(image)

    monkeypatch.setattr(Image, "fromarray", fails)
    (tmp_path / "kept.txt").write_text("here before")
    for data_dir in (tmp_path, tmp_path / "made" / "for it"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else UsageError) as caught:
            tfds_store.write("mine", raw, str(data_dir), description="")
        if error is not KeyboardInterrupt:
            assert "could not be written" in str(caught.value) and "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.rglob("*")] == ["kept.txt"]
    monkeypatch.undo()
    tfds_store.write("mine", raw, str(tmp_path), description="")


_WRITE = """
    import resource, signal, sys, numpy as np
    from gpicl_flax.errors import UsageError
    from gpicl_flax.tasks.datasets import tfds_store
    from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit
    size = int(sys.argv[2])
    if size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    rng = np.random.default_rng(0)
    split = RawSplit(rng.integers(0, 256, (20_000, 28, 28, 1), dtype=np.uint8), np.arange(20_000) % 10)
    print("start", flush=True)
    try:
        tfds_store.write("mine", RawDataset(split, split), sys.argv[1], description="")
    except UsageError as error:
        sys.exit(str(error))
"""


def writing(folder: pathlib.Path, size: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(_WRITE), str(folder), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.launch
def test_a_full_disk_leaves_nothing(tmp_path):
    process = writing(tmp_path, size=1_000_000)
    _, error = process.communicate(timeout=6000)
    assert process.returncode == 1 and "could not be written" in error.strip().split("\n")[-1]
    assert leftovers(tmp_path) == []


@pytest.mark.launch
@pytest.mark.launch
def test_a_killed_write_leaves_nothing_that_counts_as_a_dataset(tmp_path, wait_for):
    """SIGTERM cleans up.

    After SIGKILL nothing can, but there is no dataset, and the next write is as if nothing was.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = writing(tmp_path)
        process.stdout.readline()
        wait_for(lambda: any(tmp_path.rglob("*train*")), lambda process=process: process.poll() is None)
        process.send_signal(number)
        process.communicate(timeout=600)
        assert process.returncode != 0 and not (tmp_path / "mine").exists()
        if number == signal.SIGTERM:
            assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_is_named(tmp_path, raw, refused):
    (tmp_path / "file").write_text("")
    refused(
        lambda: tfds_store.write("mine", raw, str(tmp_path / "file" / "x"), description=""),
        "could not be written",
        "Not a directory",
    )


def test_a_failed_write_leaves_what_others_wrote_meanwhile(tmp_path, raw, monkeypatch):
    def fails(image):
        (tmp_path / "new" / "other").mkdir(exist_ok=True)
        raise OSError("broken")

    monkeypatch.setattr(Image, "fromarray", fails)
    with pytest.raises(UsageError, match="broken"):
        tfds_store.write("mine", raw, str(tmp_path / "new"), description="")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other"]


def test_what_a_tfds_dataset_cannot_hold_is_refused(tmp_path, raw, refused):
    many = raw._replace(train=RawSplit(np.zeros((30, 5, 4, 7), np.uint8), raw.train.labels))
    refused(lambda: tfds_store.write("mine", many, str(tmp_path), description=""), "7 channels")
    grouped = raw._replace(group_size=10)
    refused(lambda: tfds_store.write("mine", grouped, str(tmp_path), description=""), "groups")
    assert leftovers(tmp_path) == []


def test_a_dataset_of_other_splits_or_plain_labels(tmp_path, refused):
    class Plain(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "plain"
        splits = ("train", "test")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(2, 2, 1)), "label": np.int64}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in self.splits}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"image": Image.fromarray(np.full((2, 2), i, np.uint8)), "label": i}

    Plain(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    found = tfds_store.load("plain", str(tmp_path))
    assert found.class_names is None and sorted(found.test.labels) == [0, 1, 2]
    Plain.name, Plain.splits = "half", ("train",)
    Plain(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    refused(lambda: tfds_store.load("half", str(tmp_path)), "'half' has no splits train and test (it has train)")


def test_an_unprepared_dataset_says_where_it_looked_and_the_two_ways_to_get_it(tmp_path, refused):
    refused(
        lambda: tfds_store.load("mnist", str(tmp_path)),
        "'mnist' is not prepared",
        str(tmp_path / "mnist"),
        "gpicl datasets prepare mnist",
        "gpicl datasets import my_name",
    )


def test_locating_a_dataset_tells_an_unprepared_one_from_one_that_does_not_exist(tmp_path, raw):
    tfds_store.write("mine", raw, str(tmp_path), description="")
    assert tfds_store.locate("mine", str(tmp_path)) == ("mine", tmp_path / "mine")
    with pytest.raises(tfds_store.NotPrepared, match="'mnist' is not prepared"):
        tfds_store.locate("mnist", str(tmp_path))
    with pytest.raises(UsageError) as unknown:
        tfds_store.locate("no_such_dataset", str(tmp_path))
    assert not isinstance(unknown.value, tfds_store.NotPrepared)


def test_damaged_files_are_refused(tmp_path, raw, refused):
    path = tfds_store.write("mine", raw, str(tmp_path), description="")
    (shard,) = path.glob("*train*")
    shard.write_bytes(shard.read_bytes()[:100])
    refused(lambda: tfds_store.load("mine", str(tmp_path)), "'mine'", "cannot be read")
    shard.unlink()
    refused(lambda: tfds_store.load("mine", str(tmp_path)), "'mine'", "cannot be read")
    (path / "dataset_info.json").write_text("{")
    refused(lambda: tfds_store.load("mine", str(tmp_path)), f"'mine' in {tmp_path} cannot be read")


def test_images_are_decoded_once(tmp_path, raw, assert_same, monkeypatch):
    path = tfds_store.write("mine", raw, str(tmp_path), description="")
    first = tfds_store.load("mine", str(tmp_path))
    monkeypatch.setattr(tfds_store, "_decode", lambda *_: pytest.fail("decoded again"))
    again = tfds_store.load("mine", str(tmp_path))
    assert_same(again, raw)
    assert again.train.inputs.dtype == first.train.inputs.dtype and again.class_names == first.class_names
    monkeypatch.undo()
    # Another dataset in the same place is another dataset.
    other = raw._replace(test=RawSplit(255 - raw.test.inputs, raw.test.labels))
    shutil.rmtree(path)
    shutil.copytree(tfds_store.write("other", other, str(tmp_path), description=""), path)
    assert_same(tfds_store.load("mine", str(tmp_path)), other)


def test_preparing_needs_tensorflow_and_says_so(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(lambda: tfds_store.prepare("mnist", str(tmp_path)), "TensorFlow", "`tensorboard`", "gpicl datasets import")


def test_preparing_goes_through_tfds_and_its_failure_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    asked = []

    class Builder:
        data_dir = str(tmp_path / "mnist" / "3.0.1")

        def download_and_prepare(self):
            asked.append("prepare")
            if len(asked) > 2:
                raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: asked.append((args, kwargs)) or Builder())
    assert tfds_store.prepare("mnist", str(tmp_path)) == tmp_path / "mnist" / "3.0.1"
    assert asked == [(("mnist",), {"data_dir": str(tmp_path), "file_format": "array_record"}), "prepare"]
    with pytest.raises(
        GpiclError, match=r"^'mnist' could not be prepared .*no route to host\); without a network"
    ) as caught:
        tfds_store.prepare("mnist", str(tmp_path))
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_the_folder_is_that_of_tfds(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert tfds_store.data_dir_or_default(None) == pathlib.Path("~/tensorflow_datasets").expanduser()
    monkeypatch.setitem(os.environ, "TFDS_DATA_DIR", "/some/where")
    assert tfds_store.data_dir_or_default(None) == pathlib.Path("/some/where")
    assert tfds_store.data_dir_or_default("~/here") == pathlib.Path("~/here").expanduser()


def test_no_module_is_imported_that_a_dataset_names(tmp_path, raw, refused, monkeypatch):
    tfds_store.write("mine", raw, str(tmp_path), description="")
    (tmp_path / "makes_pwned.py").write_text("open('PWNED', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (features,) = tmp_path.glob("mine/*/features.json")
    text = features.read_text()
    assert "tensorflow_datasets.core.features.image_feature.Image" in text
    features.write_text(text.replace("tensorflow_datasets.core.features.image_feature.Image", "makes_pwned.Image"))
    refused(lambda: tfds_store.load("mine", str(tmp_path)), "names the class makes_pwned.Image, which is not of TFDS")
    refused(lambda: tfds_store.load("someone:mine", str(tmp_path)), "whose code would be run")
    assert not (tmp_path / "PWNED").exists()
