import logging

import numpy as np
import pytest
import scipy.ndimage

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import sources
from gpicl_flax.tasks.datasets.base_dataset import load_base_dataset
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit
from gpicl_flax.tasks.projections import input_space


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 12, 12), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 30),
        "test_images": rng.integers(0, 256, (20, 12, 12), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, 20),
    }


def load(tmp_path, arrays, input_shape=(12, 12, 1), **kwargs):
    np.savez(tmp_path / "data.npz", **arrays)
    return load_base_dataset(str(tmp_path / "data.npz"), input_shape=input_shape, num_classes=10, **kwargs)


def test_images_pass_unchanged_at_their_own_size(tmp_path, arrays):
    data = load(tmp_path, arrays)
    np.testing.assert_array_equal(data.train.inputs, arrays["train_images"].reshape(30, -1))
    np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])
    assert data.train.inputs.dtype == np.uint8


@pytest.mark.parametrize("size", [(6, 6), (5, 9), (12, 7)])
def test_images_shrink_bilinearly_without_antialiasing(tmp_path, arrays, size):
    data = load(tmp_path, arrays, (*size, 1))
    zoom = (1, size[0] / 12, size[1] / 12)
    reference = scipy.ndimage.zoom(
        arrays["test_images"].astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True
    )
    # Rounding to grey values is all that may differ.
    assert np.abs(data.test.inputs.reshape(20, *size) - reference).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("shape", "stored"), [((16, 15, 1), (12, 12, 1)), ((12, 12, 3), (12, 12, 1)), ((20, 6, 3), (12, 6, 1))]
)
def test_images_that_grow_are_stored_as_they_are_and_their_moments_are_of_the_grown(tmp_path, arrays, shape, stored):
    data = load(tmp_path, arrays, shape)
    assert data.stored_shape == stored and data.train.inputs.shape == (30, np.prod(stored))
    if stored == (12, 12, 1):
        np.testing.assert_array_equal(data.train.inputs, arrays["train_images"].reshape(30, -1))
    images = data.train.inputs.reshape(30, *stored).astype(np.float64)
    zoom = (1, shape[0] / stored[0], shape[1] / stored[1], 1)
    grown = np.repeat(scipy.ndimage.zoom(images, zoom, order=1, mode="nearest", grid_mode=True), shape[2], axis=-1)
    np.testing.assert_allclose(
        input_space.growth(stored, shape)(images.reshape(30, -1)), grown.reshape(30, -1), atol=1e-3
    )
    assert data.mean == pytest.approx(grown.mean(), rel=1e-6)
    assert data.std == pytest.approx(grown.std(), rel=1e-6)


def test_the_stored_shape_is_that_of_the_larger_split(tmp_path, arrays):
    data = load(tmp_path, arrays | {"train_images": arrays["train_images"][:, ::2, ::3]}, (12, 12, 1))
    assert data.stored_shape == (12, 12, 1)
    np.testing.assert_array_equal(data.test.inputs, arrays["test_images"].reshape(20, -1))


def test_moments_are_those_of_the_resized_training_split_alone(tmp_path, arrays):
    data = load(tmp_path, arrays, (6, 6, 1))
    pixels = data.train.inputs.astype(np.float64)
    assert data.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(), rel=1e-12)
    changed = load(tmp_path, arrays | {"test_images": arrays["test_images"] // 2}, (6, 6, 1))
    assert (changed.mean, changed.std) == (data.mean, data.std)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": np.zeros((30, 12, 12), np.float32)}, ["uint8", "float32"]),
        ({"train_images": np.zeros((30, 144), np.int32)}, ["[n, height, width]", "[30, 144]"]),
        ({"train_labels": np.zeros(30, np.float32)}, ["integers", "float32"]),
        ({"train_labels": np.zeros((30, 1), np.int32)}, ["[n]", "[30, 1]"]),
        ({"train_labels": np.zeros(29, np.int32)}, ["30 inputs", "29 labels"]),
        ({"train_labels": np.full(30, 3)}, ["train split", "every label is 3"]),
        ({"test_labels": np.full(20, 10)}, ["test split", "10", "0..9", "num_classes"]),
        ({"test_labels": np.full(20, -1)}, ["negative", "-1"]),
        (
            {"test_images": np.zeros((0, 12, 12), np.uint8), "test_labels": np.zeros(0, np.int32)},
            ["test split", "empty"],
        ),
        ({"train_images": np.full((30, 12, 12), 7, np.uint8)}, ["every input", "7"]),
        (
            {"train_images": np.zeros((30, 12, 12, 3), np.uint8)},
            ["train and test examples differ", "[12, 12, 3]", "[12, 12, 1]"],
        ),
        (
            {f"{split}_images": np.zeros((n, 12, 12, 3), np.uint8) for split, n in (("train", 30), ("test", 20))},
            ["3 channels", "input_shape"],
        ),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path, arrays, change, words):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, arrays | change)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


FEATURES = np.random.default_rng(1).normal(3, 2, (30, 7)).astype(np.float32)


def features(**changes):
    arrays = {"train_images": FEATURES, "train_labels": np.arange(30) % 10, "test_images": FEATURES[:20] + 1,
              "test_labels": np.arange(20) % 10}  # fmt: skip
    return arrays | changes


def test_features_pass_unchanged_and_are_normalised_by_their_own_moments(tmp_path):
    data = load(tmp_path, features(), (7,))
    np.testing.assert_array_equal(data.train.inputs, FEATURES)
    assert data.train.inputs.dtype == np.float32
    assert data.normalization(True) == pytest.approx((FEATURES.mean(dtype=float), FEATURES.std(dtype=float)), rel=1e-9)
    assert data.normalization(False) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "shape", "words"),
    [
        ({}, (3, 3, 1), ["7 features", "input_shape = (7,)"]),
        ({}, (8,), ["7 features"]),
        ({"test_images": np.full((20, 7), np.nan, np.float32)}, (7,), ["test split", "20 example(s)", "NaN"]),
        (
            {"train_images": np.where(FEATURES == FEATURES.max(), np.inf, FEATURES)},
            (7,),
            ["train split", "1 example(s)"],
        ),
        ({"test_images": np.zeros((20, 6), np.float32)}, (7,), ["train and test examples differ"]),
        ({"train_images": FEATURES.astype(np.float64)}, (7,), ["float32", "float64"]),
    ],
)
def test_wrong_features_are_refused_in_one_line(tmp_path, changes, shape, words):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, features(**changes), shape)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_images_at_a_shape_of_features_are_refused(tmp_path, arrays):
    with pytest.raises(UsageError, match="holds images: .*height, width, channels"):
        load(tmp_path, arrays, (144,))


def test_without_a_shape_and_number_of_classes_they_are_those_of_the_data(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays | {"train_labels": np.arange(30) % 3, "test_labels": np.arange(20) % 5})
    data = load_base_dataset(str(tmp_path / "data.npz"))
    assert data.input_shape == (12, 12, 1) and data.num_classes == 5
    np.savez(tmp_path / "data.npz", **arrays | {"train_labels": np.arange(30) * 10**9})
    with pytest.raises(UsageError, match="largest label is 29000000000, but there are only 50 examples"):
        load_base_dataset(str(tmp_path / "data.npz"))


def test_what_looks_wrong_is_a_warning(tmp_path, arrays, caplog):
    load(tmp_path, arrays)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING and "no " not in r.message] == []
    caplog.clear()
    arrays["train_labels"], arrays["test_labels"] = np.arange(30) % 8, np.arange(20) % 10
    arrays["train_images"][4] = 9
    arrays["test_images"][[3, 7]] = arrays["train_images"][[0, 11]]
    load(tmp_path, arrays)
    found = [record.message.partition(": ")[2] for record in caplog.records]
    assert found == [
        "no train example of class 8, 9",
        "1 train example(s) have the same value everywhere",
        "2 test example(s) are in the train split as well",
    ]


def test_the_fingerprint_is_that_of_the_data_alone(tmp_path, arrays):
    data = load(tmp_path, arrays)
    np.savez(tmp_path / "copy.npz", **arrays)
    copy = load_base_dataset(str(tmp_path / "copy.npz"), input_shape=(12, 12, 1), num_classes=10)
    assert copy.fingerprint == data.fingerprint and len(data.fingerprint) == 16
    changed = [{name: array.copy() for name, array in arrays.items()} for _ in range(3)]
    changed[0]["train_images"][29, 11, 11] ^= 1
    changed[1]["test_labels"][0] = (changed[1]["test_labels"][0] + 1) % 10
    changed[2]["test_images"] = changed[2]["test_images"][::-1]
    fingerprints = {load(tmp_path, arrays).fingerprint for arrays in changed}
    features_of_the_same_bytes = {
        name: array.reshape(len(array), -1) for name, array in arrays.items() if array.ndim > 1
    }
    fingerprints.add(load(tmp_path, arrays | features_of_the_same_bytes, (144,)).fingerprint)
    assert len(fingerprints | {data.fingerprint, load(tmp_path, arrays, (6, 6, 1)).fingerprint}) == 6


def test_images_of_several_sizes_are_resized_one_by_one(monkeypatch):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (h, w, 1), dtype=np.uint8) for h, w in rng.integers(4, 12, (20, 2))]
    split = RawSplit(images, np.arange(20) % 10)
    monkeypatch.setattr(sources, "load", lambda *args, **kwargs: RawDataset(split, split))
    data = load_base_dataset("many", input_shape=(6, 6, 3), num_classes=10)
    assert data.stored_shape == (6, 6, 1)
    for found, image in zip(data.train.inputs, images, strict=True):
        zoom = (6 / image.shape[0], 6 / image.shape[1])
        expected = scipy.ndimage.zoom(image[..., 0].astype(float), zoom, order=1, mode="nearest", grid_mode=True)
        assert np.abs(found.reshape(6, 6) - expected).max() <= 0.5 + 1e-3
