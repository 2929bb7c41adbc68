import struct

import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import files, sources, validation
from gpicl_flax.tasks.datasets.base_dataset import load_base_dataset
from gpicl_flax.tasks.datasets.raw import NOT_READ, RawDataset, RawSplit


def dataset(labels, group_size=None):
    inputs = np.arange(len(labels), dtype=np.float32)[:, None]
    return RawDataset(RawSplit(inputs, np.asarray(labels)), NOT_READ, group_size=group_size)


def test_the_parts_are_the_training_split_divided_with_a_share_of_each_class():
    labels = np.repeat(np.arange(4), [100, 40, 10, 2])
    held = validation.hold_out("it", dataset(labels), 0.1)
    both = np.concatenate([held.train.inputs, held.test.inputs])[:, 0]
    np.testing.assert_array_equal(np.sort(both), np.arange(152))
    np.testing.assert_array_equal(np.bincount(held.test.labels), [10, 4, 1, 1])
    for split in (held.train, held.test):  # examples keep their labels
        np.testing.assert_array_equal(split.labels, labels[split.inputs[:, 0].astype(int)])


def test_the_same_examples_are_held_out_each_time():
    labels = np.random.default_rng(3).integers(5, size=300)
    first, again = (validation.hold_out("it", dataset(labels), 0.2).test.inputs for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_groups_stay_whole():
    held = validation.hold_out("it", dataset(np.tile(np.arange(5), 40), group_size=5), 0.25)
    groups = held.test.inputs.reshape(-1, 5)
    assert len(groups) == 10 and (groups[:, 0] % 5 == 0).all() and (np.diff(groups) == 1).all()


def test_images_of_several_sizes_can_be_held_out():
    images = [np.full((2 + index % 3, 3, 1), index, np.uint8) for index in range(40)]
    held = validation.hold_out("it", RawDataset(RawSplit(images, np.arange(40) % 2), NOT_READ), 0.25)
    assert sorted(int(image[0, 0, 0]) for image in (*held.train.inputs, *held.test.inputs)) == [*range(40)]
    assert len(held.test.inputs) == 10


@pytest.mark.parametrize(("labels", "group_size"), [([0, 1], None), (list(range(10)), 10)])
def test_too_few_examples_are_refused(labels, group_size):
    with pytest.raises(UsageError, match="it has (2|10) train examples, too few to hold out a share of 0.1"):
        validation.hold_out("it", dataset(labels, group_size), 0.1)


def test_labels_of_a_wrong_form_are_refused_as_elsewhere():
    with pytest.raises(UsageError, match="it, train split: labels must be integers"):
        validation.hold_out("it", dataset(np.zeros((4, 2), int)), 0.1)


@pytest.mark.parametrize("name", ["digits", "random"])
def test_built_in_datasets_have_validation(name):
    shape = (8, 8, 1)
    whole = load_base_dataset(name, input_shape=shape, num_classes=10)
    held = load_base_dataset(name, input_shape=shape, num_classes=10, validation_share=0.1)
    assert len(held.train) + len(held.test) == len(whole.train)
    assert abs(len(held.test) / len(whole.train) - 0.1) < 0.01
    assert held.fingerprint != whole.fingerprint
    known = {example.tobytes() for example in whole.test.inputs}
    assert not any(example.tobytes() in known for example in held.test.inputs)


def test_the_test_split_of_files_is_not_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    train = {"x_train": rng.integers(0, 256, (40, 4, 4), dtype=np.uint8), "y_train": np.arange(40) % 2}
    np.savez(tmp_path / "data.npz", **train, x_test=np.zeros(3), y_test=np.array(["no", "labels"]))
    found = load_base_dataset(str(tmp_path / "data.npz"), input_shape=(4, 4, 1), num_classes=2, validation_share=0.2)
    assert len(found.train) == 32 and len(found.test) == 8
    with pytest.raises(UsageError, match="test split"):  # the test split of this file cannot be used
        load_base_dataset(str(tmp_path / "data.npz"), input_shape=(4, 4, 1), num_classes=2)
    for name in files.idx.FILES[:2]:
        array = train["x_train" if "images" in name else "y_train"].astype(np.uint8)
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (tmp_path / "idx").mkdir(exist_ok=True)
        (tmp_path / "idx" / name).write_bytes(header + array.tobytes())
    for name in files.idx.FILES[2:]:
        (tmp_path / "idx" / name).write_bytes(b"damaged")
    assert len(sources.load(f"{tmp_path}/idx/", with_test=False).train.inputs) == 40
    with pytest.raises(UsageError, match="not a readable idx file"):
        sources.load(f"{tmp_path}/idx/")
    # Nor are the files of a folder of class folders.
    for split in ("train", "test"):
        (tmp_path / "folder" / split).mkdir(parents=True)
    read = []
    monkeypatch.setattr(files.class_folder, "read", lambda path: read.append(path.name) or (RawSplit([], []), ()))
    assert sources.load(str(tmp_path / "folder"), with_test=False).test is NOT_READ
    assert read == ["train"]


def test_the_test_files_of_a_tfds_dataset_are_not_read(tmp_path, monkeypatch, raw):
    from gpicl_flax.tasks.datasets import tfds_store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tfds_store.write("mine", raw, str(tmp_path), description="test")
    (shard,) = folder.glob("*-test.*")
    shard.write_bytes(b"damaged")
    for _ in range(2):  # decoded, and from the cache
        found = sources.load("mine", data_dir=str(tmp_path), with_test=False)
        assert found.test is NOT_READ and len(found.train.inputs) == len(raw.train.inputs)
    with pytest.raises(UsageError, match="'mine'"):
        sources.load("mine", data_dir=str(tmp_path))
