"""Checks of raw data: data that cannot be trained on are refused, and data that only look wrong cause a warning."""

import hashlib
import logging
from collections.abc import Iterator

import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit

logger = logging.getLogger(__name__)


def check(what: str, dataset: RawDataset, num_classes: int | None = None) -> RawDataset:
    """Checks both splits, and gives images their axis of channels.

    Args:
      what: the dataset, in the words of a message.
      dataset: the raw data.
      num_classes: C; None: one more than the largest label.

    Returns:
      The dataset with images [n, height, width, channels] uint8 (a list of them where they have several sizes), or with
      features [n, X] float32 or uint8.

    Raises:
      UsageError: a split is empty, has the wrong type or shape, labels outside 0..C-1 or of one class only, or values
        that are not finite; or the splits do not fit each other.
    """
    train, test = (
        check_split(f"{what}, {name} split", split, num_classes)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    )
    first, other = train.inputs[0], test.inputs[0]
    if (first.dtype, first.ndim, first.shape[-1]) != (other.dtype, other.ndim, other.shape[-1]):
        raise UsageError(f"{what}: train and test examples differ, {_kind(first)} and {_kind(other)}")
    largest, count = max(train.labels.max(), test.labels.max()), len(train.labels) + len(test.labels)
    if largest >= count:
        raise UsageError(f"{what}: the largest label is {largest}, but there are only {count} examples")
    return dataset._replace(train=train, test=test)


def check_varied(what: str, inputs: np.ndarray) -> None:
    """Raises UsageError if all inputs of a train split are the same, because nothing can be learned from these."""
    if inputs.min() == inputs.max():
        raise UsageError(f"{what}: every input of the train split has the value {inputs.min():g}")


def warn(what: str, train: RawSplit, test: RawSplit, num_classes: int) -> None:
    """Logs a warning for each thing that looks wrong.

    These are classes without examples, examples with the same value everywhere, and test examples that are also in the
    train split.
    """
    for name, split in (("train", train), ("test", test)):
        inputs, labels = split.array, split.labels
        absent = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
        if len(absent):
            some = ", ".join(map(str, absent[:10])) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
            logger.warning("%s: no %s example of class %s", what, name, some)
        flat = inputs.reshape(len(inputs), -1)
        constant = int((flat.min(axis=1) == flat.max(axis=1)).sum())
        if constant and flat.shape[1] > 1:
            logger.warning("%s: %d %s example(s) have the same value everywhere", what, constant, name)
    known = set(_hashes(train.array))
    shared = sum(value in known for value in _hashes(test.array))
    if shared:
        logger.warning("%s: %d test example(s) are in the train split as well", what, shared)


def check_split(what: str, split: RawSplit, num_classes: int | None = None) -> RawSplit:
    """Checks one split, of which messages say `what` it is; returns and raises as `check` does."""
    inputs, labels = split
    if isinstance(inputs, list):
        wrong = next((x for x in inputs if x.dtype != np.uint8 or x.ndim != 3), None)
        if wrong is not None:
            raise UsageError(f"{what}: images must be uint8 [height, width, channels], not {_kind(wrong)}")
    else:
        inputs = inputs[..., None] if inputs.ndim == 3 and inputs.dtype == np.uint8 else inputs
        if not (
            inputs.ndim == 4 and inputs.dtype == np.uint8 or inputs.ndim == 2 and inputs.dtype in (np.uint8, np.float32)
        ):
            raise UsageError(
                f"{what}: inputs must be images, uint8 of shape [n, height, width] or [n, height, width, channels], or "
                f"features, float32 of shape [n, features], not {_kind(inputs)}"
            )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{what}: labels must be integers of shape [n], not {_kind(labels)}")
    if len(inputs) != len(labels):
        raise UsageError(f"{what}: {len(inputs)} inputs but {len(labels)} labels")
    if not len(inputs) or not isinstance(inputs, list) and not inputs.size:
        raise UsageError(f"{what} is empty")
    if labels.min() < 0:
        raise UsageError(f"{what}: labels must not be negative, but the smallest is {labels.min()}")
    if num_classes is not None and labels.max() >= num_classes:
        raise UsageError(
            f"{what}: labels run from {labels.min()} to {labels.max()}, but with TaskDistribution.num_classes = "
            f"{num_classes} they must lie in 0..{num_classes - 1}"
        )
    if labels.min() == labels.max():
        raise UsageError(f"{what}: every label is {labels.min()}; there is nothing to tell apart")
    if not isinstance(inputs, list) and inputs.dtype == np.float32:
        bad = int((~np.isfinite(inputs).all(axis=1)).sum())
        if bad:
            raise UsageError(f"{what}: {bad} example(s) hold NaN or infinite features")
    return RawSplit(inputs, labels)


def _hashes(inputs: np.ndarray) -> Iterator[bytes]:
    """Yields a short hash of every example. Comparing examples themselves would double the memory of the data."""
    return (hashlib.blake2b(example, digest_size=16).digest() for example in np.ascontiguousarray(inputs))


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
