import numpy as np
import pytest
import scipy.ndimage

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.base_dataset import load_base_dataset


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 12, 12), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 30),
        "test_images": rng.integers(0, 256, (20, 12, 12), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, 20),
    }


def load(tmp_path, arrays, image_shape=(12, 12, 1), **kwargs):
    np.savez(tmp_path / "data.npz", **arrays)
    return load_base_dataset(str(tmp_path / "data.npz"), image_shape=image_shape, num_classes=10, **kwargs)


def test_images_pass_unchanged_at_their_own_size(tmp_path, arrays):
    data = load(tmp_path, arrays)
    np.testing.assert_array_equal(data.train.images, arrays["train_images"].reshape(30, -1))
    np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])
    assert data.train.images.dtype == np.uint8


@pytest.mark.parametrize("size", [(6, 6), (5, 9), (16, 16)])
def test_resize_is_bilinear_without_antialiasing(tmp_path, arrays, size):
    data = load(tmp_path, arrays, (*size, 1))
    zoom = (1, size[0] / 12, size[1] / 12)
    reference = scipy.ndimage.zoom(
        arrays["test_images"].astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True
    )
    # Rounding to grey values is all that may differ.
    assert np.abs(data.test.images.reshape(20, *size) - reference).max() <= 0.5 + 1e-3


def test_grey_becomes_rgb_by_repetition(tmp_path, arrays):
    images = load(tmp_path, arrays, (12, 12, 3)).train.images.reshape(30, 12, 12, 3)
    for channel in range(3):
        np.testing.assert_array_equal(images[..., channel], arrays["train_images"])


def test_moments_are_those_of_the_resized_training_split_alone(tmp_path, arrays):
    data = load(tmp_path, arrays, (6, 6, 1))
    pixels = data.train.images.astype(np.float64)
    assert data.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(), rel=1e-12)
    changed = load(tmp_path, arrays | {"test_images": arrays["test_images"] // 2}, (6, 6, 1))
    assert (changed.mean, changed.std) == (data.mean, data.std)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": np.zeros((30, 12, 12), np.float32)}, ["uint8", "float32"]),
        ({"train_images": np.zeros((30, 144), np.uint8)}, ["[n, height, width]", "[30, 144]"]),
        ({"train_labels": np.zeros(30, np.float32)}, ["integers", "float32"]),
        ({"train_labels": np.zeros((30, 1), np.int32)}, ["[n]", "[30, 1]"]),
        ({"train_labels": np.zeros(29, np.int32)}, ["30 images", "29 labels"]),
        ({"test_labels": np.full(20, 10)}, ["test split", "10", "0..9", "num_classes"]),
        ({"test_labels": np.full(20, -1)}, ["-1", "0..9"]),
        (
            {"test_images": np.zeros((0, 12, 12), np.uint8), "test_labels": np.zeros(0, np.int32)},
            ["test split", "empty"],
        ),
        ({"train_images": np.full((30, 12, 12), 7, np.uint8)}, ["every pixel", "7"]),
        ({"train_images": np.zeros((30, 12, 12, 3), np.uint8)}, ["3 channels", "image_shape"]),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path, arrays, change, words):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, arrays | change)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
