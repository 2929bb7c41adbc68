"""Embeds a base dataset: its images become features of a pretrained encoder (Figures 10 and 12 of the paper)."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, moments
from gpicl_flax.tasks.datasets.encoders import Encoder
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit


def embed(
    dataset: BaseDataset,
    encoder: Encoder,
    *,
    batch_size: int = 64,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> RawDataset:
    """Maps the images of both splits to features, as for Figures 10 and 12.

    Like the authors' code, it computes x = tanh((x - mean) / std) with one mean and one std of all features. Theirs are
    those of each batch of 128 images, so that a feature depends on its neighbours in the file, and the test split on
    itself. Here they are those of the whole training split, for both splits.

    Args:
      dataset: images.
      encoder: the network that makes the features.
      batch_size: images that the encoder is given at once; the last batch of a split is padded.
      on_batch: called after every batch with the number of examples that are done and that of both splits.

    Raises:
      UsageError: the dataset holds features or groups, or features of the encoder are not finite or all the same.
    """
    if len(dataset.stored_shape) != 3:
        raise UsageError(f"base dataset {dataset.name!r} holds features already; only images can be embedded")
    if dataset.train.group_size is not None:
        raise UsageError(f"base dataset {dataset.name!r} is made of groups of random points; there is nothing to embed")
    if batch_size < 1:
        raise UsageError(f"the batch size must be a positive integer, not {batch_size}")
    total, done = len(dataset.train) + len(dataset.test), 0
    splits = []
    for split in (dataset.train, dataset.test):
        features, filled = np.empty((len(split), encoder.num_features), np.float32), 0
        for batch in _features(split.inputs.reshape(-1, *dataset.stored_shape), encoder, batch_size):
            features[filled : filled + len(batch)] = batch
            filled += len(batch)
            on_batch(done + filled, total)
        done += filled
        splits.append(features)
    with np.errstate(invalid="ignore"):  # caused by infinite features
        mean, std = moments(splits[0])
    if std == 0 or not np.isfinite(std):
        raise UsageError(
            f"base dataset {dataset.name!r}: features of encoder {encoder.name} have mean {mean:g} and standard "
            f"deviation {std:g}, and cannot be standardised"
        )
    for features in splits:
        features -= mean
        features /= std
        np.tanh(features, out=features)
    train, test = (RawSplit(x, split.labels) for x, split in zip(splits, (dataset.train, dataset.test), strict=True))
    return RawDataset(train, test)


def _features(images: np.ndarray, encoder: Encoder, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the features of each batch in turn, fetched while the device computes the next."""
    running = None
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = [(0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)]
        features = encoder(jax.device_put(np.pad(batch, padding))), len(batch)
        if running:
            yield _fetch(*running)
        running = features
    if running:
        yield _fetch(*running)


def _fetch(features: jax.Array, size: int) -> np.ndarray:
    """Copies features to the host, without the padding."""
    return np.asarray(features)[:size]
