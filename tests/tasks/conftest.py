"""A small raw dataset, and the same in files."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import files, idx
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit


@pytest.fixture
def raw() -> RawDataset:
    """30 training and 20 test images of 5 x 4 pixels, ten classes."""
    rng = np.random.default_rng(0)

    def split(size):
        return RawSplit(rng.integers(0, 256, (size, 5, 4, 1), dtype=np.uint8), rng.permutation(np.arange(size) % 10))

    return RawDataset(split(30), split(20))


@pytest.fixture
def arrays(raw) -> dict[str, np.ndarray]:
    """`raw` as the arrays of an npz file."""
    values = raw.train.inputs[..., 0], raw.train.labels, raw.test.inputs[..., 0], raw.test.labels
    return dict(zip(files.NPZ_KEYS, values, strict=True))


def as_idx(array: np.ndarray) -> bytes:
    array = array.astype(np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def write_idx(arrays):
    """(folder, zipped) -> writes `raw` as the four files of MNIST."""

    def write(folder, zipped=False):
        for name, array in zip(idx.FILES, arrays.values(), strict=True):
            data = gzip.compress(as_idx(array)) if zipped else as_idx(array)
            (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(data)

    return write


@pytest.fixture
def write_class_folder():
    """(folder, images, labels, names) -> writes a PNG file an image, in a folder for each class."""

    def write(folder, images, labels, names):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / names[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)

    return write


def same(found: RawSplit, expected: RawSplit) -> None:
    np.testing.assert_array_equal(np.asarray(found.inputs).reshape(expected.inputs.shape), expected.inputs)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.fixture
def assert_same():
    """(found, expected): both splits of two raw datasets are equal, up to an axis of one channel."""

    def check(found, expected):
        same(found.train, expected.train)
        same(found.test, expected.test)

    return check


@pytest.fixture
def refused():
    """(call, *words): the call raises UsageError in one line that holds all of these words."""

    def check(call, *words):
        with pytest.raises(UsageError) as caught:
            call()
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message

    return check
