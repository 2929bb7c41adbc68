"""A base dataset: checked, resized uint8 images that live in device memory, and what normalises them."""

import dataclasses

import jax
import numpy as np
import scipy.ndimage

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import sources

_CHUNK = 8192  # images worked on at once, which bounds the wider copies


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: images [n, X] uint8 (flattened, X input features) and labels [n] int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class BaseDataset:
    """A base dataset at one image shape.

    Attributes:
      name: as the user gave it.
      train, test: the fixed splits; meta-training sees `train` only, meta-testing `test` only.
      mean, std: over all examples and pixels of the training split after resizing (paper A.4), in grey values 0..255.
    """

    name: str
    train: Split
    test: Split
    mean: float
    std: float


def load_base_dataset(
    name: str, *, image_shape: tuple[int, int, int], num_classes: int, data_dir: str | None = None
) -> BaseDataset:
    """Loads base dataset `name` at `image_shape` (height, width, channels).

    Images are resized bilinearly without antialiasing and rounded to uint8; grey images become RGB by repetition.

    Raises:
      UsageError: the dataset is missing, is not a set of uint8 images with labels in [0, num_classes), or is empty.
    """
    raw = sources.read(name, data_dir)
    splits = []
    for split, images, labels in (
        ("train", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if isinstance(images, list):  # of several sizes
            images = _resize_each(images, image_shape)
        images = images[..., None] if images.ndim == 3 else images
        _check(f"base dataset {name!r}, {split} split", images, labels, image_shape, num_classes)
        images = _resize(images, image_shape).reshape(len(images), -1)
        splits.append(Split(images, np.asarray(labels, np.int32)))
    train, test = splits
    mean, std = _moments(train.images)
    if std == 0:
        raise UsageError(f"base dataset {name!r}: every pixel of the train split has the value {mean:g}")
    return BaseDataset(name, train, test, mean, std)


def _check(what: str, images: np.ndarray, labels: np.ndarray, image_shape: tuple[int, int, int], num_classes: int):
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UsageError(
            f"{what}: images must be uint8 of shape [n, height, width] or [n, height, width, channels], "
            f"not {images.dtype} {list(images.shape)}"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{what}: labels must be integers of shape [n], not {labels.dtype} {list(labels.shape)}")
    if len(images) != len(labels):
        raise UsageError(f"{what}: {len(images)} images but {len(labels)} labels")
    if not images.size:
        raise UsageError(f"{what} is empty")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(
            f"{what}: labels run from {labels.min()} to {labels.max()}, but with TaskDistribution.num_classes = "
            f"{num_classes} they must lie in 0..{num_classes - 1}"
        )
    if images.shape[-1] != image_shape[-1] and images.shape[-1] != 1:
        raise UsageError(
            f"{what}: images have {images.shape[-1]} channels, TaskDistribution.image_shape asks for {image_shape[-1]}; "
            "only grey images are converted (to RGB, by repetition)"
        )


def _resize(images: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [n, h, w, c] -> uint8 [n, *image_shape]."""
    height, width, channels = image_shape
    if images.shape[1:3] != (height, width):
        shape = (height, width, images.shape[-1])
        chunks = [
            np.asarray(jax.image.resize(chunk.astype(np.float32), (len(chunk), *shape), "bilinear", antialias=False))
            for chunk in np.split(images, range(_CHUNK, len(images), _CHUNK))
        ]
        images = np.round(np.concatenate(chunks)).astype(np.uint8)
    return np.repeat(images, channels // images.shape[-1], axis=-1)


def _resize_each(images: list[np.ndarray], image_shape: tuple[int, int, int]) -> np.ndarray:
    """Images uint8 [h, w, c] of several sizes -> uint8 [n, height, width, c], as `_resize` does, without compiling."""
    resized = []
    for image in images:
        zoom = (image_shape[0] / image.shape[0], image_shape[1] / image.shape[1], 1)
        values = scipy.ndimage.zoom(image.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
        resized.append(np.round(values).astype(np.uint8))
    return np.stack(resized) if resized else np.zeros((0, *image_shape), np.uint8)


def _moments(images: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, exact and cheap: from the histogram of the 256 grey values."""
    chunks = np.split(images, range(_CHUNK, len(images), _CHUNK))  # bincount works on int64 copies
    counts = sum(np.bincount(chunk.reshape(-1), minlength=256) for chunk in chunks)
    values = np.arange(256)
    mean = np.average(values, weights=counts)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
