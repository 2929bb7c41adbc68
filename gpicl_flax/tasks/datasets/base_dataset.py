"""A base dataset: checked examples for a run's input shape, their normalisation, and a fingerprint of both."""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import checks, sources, validation
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit
from gpicl_flax.tasks.datasets.sampler import ExampleSampler
from gpicl_flax.tasks.projections import input_space

logger = logging.getLogger(__name__)

_CHUNK = 8192  # inputs processed at once, which bounds the memory of wider copies


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    Attributes:
      inputs: [n, stored features], grey values uint8 or features float32.
      labels: [n] int32.
      group_size: if set, examples are groups of `group_size` neighbours, and a sequence resamples one group with
        replacement. If not, a sequence draws from all examples without replacement.
    """

    inputs: np.ndarray
    labels: np.ndarray
    group_size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """The memory that the examples take."""
        return self.inputs.nbytes + self.labels.nbytes

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The inputs and the labels."""
        return self.inputs, self.labels

    @property
    def sampler(self) -> ExampleSampler:
        """Draws the examples of sequences."""
        return ExampleSampler(len(self), self.group_size)

    def gather(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a batch with inputs [..., T, X] and labels [..., T] in place of its example_indices [..., T]."""
        indices = batch["example_indices"]
        rest = {name: array for name, array in batch.items() if name != "example_indices"}
        return rest | {"inputs": self.inputs[indices], "labels": self.labels[indices]}

    def mapped(self, folder: str) -> "Split":
        """Returns the same examples with inputs in a file in `folder`, whose memory all processes share."""
        return dataclasses.replace(self, inputs=_MappedArray(self.inputs, folder))  # pyright: ignore[reportArgumentType]


class _MappedArray:
    """An array in a file. A worker that receives it maps the file into its memory, which all workers share."""

    def __init__(self, array: np.ndarray, folder: str):
        self._path = str(pathlib.Path(folder) / "inputs.npy")
        np.save(self._path, array)
        self._array = array

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._array[indices]

    def __len__(self) -> int:
        return len(self._array)

    def __getstate__(self):
        return self._path

    def __setstate__(self, path: str):
        self._path, self._array = path, np.load(path, mmap_mode="r", allow_pickle=False)


@dataclasses.dataclass(frozen=True, eq=False)
class BaseDataset:
    """A base dataset for one input shape.

    Images that are larger than the input shape are stored shrunk to it. Smaller ones are stored as they are. They grow,
    with grey repeated to RGB, only where they are used: see `input_space`.

    Attributes:
      name: the name that the user gave.
      train, test: the fixed splits. Meta-training uses only `train`, meta-testing only `test`. Of a dataset that was
        loaded with a validation share, `test` is that share of the training split.
      mean, std: over all examples and inputs of the training split at the input shape (paper A.4).
      input_shape: (height, width, channels), or (X,) for features.
      num_classes: C.
      fingerprint: a hash of the original data and of the input shape: equal if and only if these are.
      stored_shape: the shape of the examples in the splits; by default the input shape.
      unit: what inputs that are not normalised are divided by; by default 255 for grey values and 1 for features.
    """

    name: str
    train: Split
    test: Split
    mean: float
    std: float
    input_shape: tuple[int, ...]
    num_classes: int
    fingerprint: str = ""
    stored_shape: tuple[int, ...] = ()
    unit: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "stored_shape", self.stored_shape or self.input_shape)
        object.__setattr__(self, "unit", self.unit or (255.0 if self.train.inputs.dtype == np.uint8 else 1.0))

    def normalization(self, normalize: bool) -> tuple[float, float]:
        """Returns offset and scale of the inputs: (mean, std) if they are normalised.

        Otherwise they scale grey values to [0, 1] and do not change features.
        """
        if normalize:
            return self.mean, self.std
        return 0.0, self.unit


def load_base_dataset(
    name: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    data_dir: str | None = None,
    validation_share: float | None = None,
) -> BaseDataset:
    """Loads base dataset `name`.

    Args:
      name: see `sources.read`.
      input_shape: (height, width, channels) that images are resized to, bilinearly without antialiasing; or (X,), for a
        dataset of features. Grey images become RGB by repetition. Shrunk images are rounded to uint8. None: the shape
        of the first example.
      num_classes: C; None: one more than the largest label.
      data_dir: where TFDS keeps datasets; None for its own default.
      validation_share: the share of the training split that takes the place of the test split, which is not read; None:
        both splits are used as they are.

    Raises:
      UsageError: the dataset is missing, does not have this input shape, or cannot be trained on (see `checks`).
    """
    what = f"base dataset {name!r}"
    raw = sources.load(name, input_shape=input_shape, data_dir=data_dir, with_test=validation_share is None)
    if validation_share is not None:
        raw = validation.hold_out(what, raw, validation_share)
    raw = checks.check(what, raw, num_classes)
    if input_shape is None:
        input_shape = tuple(map(int, raw.train.inputs[0].shape))
        if isinstance(raw.train.inputs, list):
            logger.warning("%s: images of several sizes, resized to that of the first, %s", what, list(input_shape))
    input_shape = tuple(input_shape)
    num_classes = num_classes or 1 + int(max(raw.train.labels.max(), raw.test.labels.max()))
    for split in (raw.train, raw.test):
        _check_shape(what, split.inputs[0], input_shape)
    fingerprint = _fingerprint(raw, input_shape)
    stored_shape = _stored_shape(raw, input_shape)
    train, test = (
        Split(_to_shape(split.inputs, stored_shape), split.labels.astype(np.int32), raw.group_size)
        for split in (raw.train, raw.test)
    )
    checks.check_varied(what, train.inputs)
    mean, std = moments(train.inputs, _grow(stored_shape, input_shape))
    checks.warn(what, RawSplit(train.inputs, train.labels), RawSplit(test.inputs, test.labels), num_classes)
    return BaseDataset(name, train, test, mean, std, input_shape, num_classes, fingerprint, stored_shape)


def _stored_shape(raw: RawDataset, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the stored shape of both splits: that of the larger images, where they differ."""
    if any(isinstance(split.inputs, list) for split in (raw.train, raw.test)):
        return input_space.stored_shape((*input_shape[:2], raw.train.inputs[0].shape[-1]), input_shape)
    larger = map(max, raw.train.array.shape[1:], raw.test.array.shape[1:])
    return input_space.stored_shape(tuple(larger), input_shape)


def _fingerprint(raw: RawDataset, input_shape: tuple[int, ...]) -> str:
    # It does not hash the resized images, because another kind of device may round one of them to another grey value.
    digest = hashlib.sha256(str(input_shape).encode())
    for split in (raw.train, raw.test):
        for array in (
            *(split.inputs if isinstance(split.inputs, list) else [split.inputs]),
            split.labels.astype(np.int64),
        ):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _check_shape(what: str, example: np.ndarray, input_shape: tuple[int, ...]) -> None:
    """Raises UsageError unless an example, an image or features, can be converted to `input_shape`."""
    if example.ndim == 1:
        if example.shape != input_shape:
            raise UsageError(
                f"{what} holds {len(example)} features an example: set TaskDistribution.input_shape = "
                f"({len(example)},), not {input_shape}"
            )
    elif len(input_shape) == 1:
        raise UsageError(f"{what} holds images: TaskDistribution.input_shape must be (height, width, channels)")
    elif example.shape[-1] not in (1, input_shape[-1]):
        raise UsageError(
            f"{what}: images have {example.shape[-1]} channels, TaskDistribution.input_shape asks for "
            f"{input_shape[-1]}; only grey images are converted (to RGB, by repetition)"
        )


def _to_shape(inputs: np.ndarray | list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Converts images or features to [n, stored features]."""
    if isinstance(inputs, list):  # images of several sizes
        inputs = _resize_each(inputs, shape)
    if inputs.ndim == 4:
        inputs = _resize(inputs, shape)
    return inputs.reshape(len(inputs), -1)


def _resize(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes images uint8 [n, h, w, c] to uint8 [n, *shape], with the same number of channels."""
    if images.shape[1:] == shape:
        return images
    chunks = [
        np.asarray(jax.image.resize(chunk.astype(np.float32), (len(chunk), *shape), "bilinear", antialias=False))
        for chunk in _chunks(images)
    ]
    return np.round(np.concatenate(chunks)).astype(np.uint8)


def _resize_each(images: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Resizes images uint8 [h, w, c] of several sizes to uint8 [n, *shape], as `_resize` does, without compiling."""
    resized = []
    for image in images:
        zoom = (shape[0] / image.shape[0], shape[1] / image.shape[1], 1)
        values = scipy.ndimage.zoom(image.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
        resized.append(np.round(values).astype(np.uint8))
    return np.stack(resized)


def _grow(stored_shape: tuple[int, ...], input_shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray] | None:
    """Returns the map from stored inputs [n, stored features] to those at the input shape [n, X] float32.

    Returns None where they are the same.
    """
    if stored_shape == input_shape:
        return None
    growth = input_space.growth(stored_shape, input_shape)
    return jax.jit(lambda inputs: growth(inputs.astype(jnp.float32)))


def _chunks(inputs: np.ndarray) -> Iterator[np.ndarray]:
    return (inputs[start : start + _CHUNK] for start in range(0, len(inputs), _CHUNK))


def moments(inputs: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[float, float]:
    """Returns mean and standard deviation of all inputs, in float64, after a transform of examples if there is one."""
    if inputs.dtype == np.uint8 and transform is None:  # exact and fast, from the histogram of the 256 grey values
        counts = sum(np.bincount(chunk.reshape(-1), minlength=256) for chunk in _chunks(inputs))
        values = np.arange(256)
        mean = np.average(values, weights=counts)
        return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))

    def average(statistic: Callable[[np.ndarray], np.ndarray]) -> float:
        total = size = 0
        for chunk in _chunks(inputs):
            chunk = np.asarray(transform(chunk)) if transform else chunk
            total += statistic(chunk).sum(dtype=np.float64)
            size += chunk.size
        return total / size

    mean = average(lambda chunk: chunk)
    return float(mean), float(np.sqrt(average(lambda chunk: (chunk - mean) ** 2)))
