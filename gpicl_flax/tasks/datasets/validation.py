"""Holds out a part of the training split for validation, in the place of the test split, which is then not read.

Settings are chosen on it (see `sweep.selection`), so that nothing that is chosen has seen the test split.
"""

import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import checks
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit


def hold_out(what: str, dataset: RawDataset, share: float) -> RawDataset:
    """Returns a dataset whose test split is a share of the training split, and whose training split is the rest.

    Which examples are held out depends on the dataset and the share alone, so all runs of a selection have the same
    ones. They are as many of each class as the share says, at least one where the class has two. Where sequences are
    made of groups, whole groups are held out.

    Args:
      what: the dataset, in the words of a message.
      dataset: the raw data, of which only the training split is used.
      share: in (0, 1).

    Raises:
      UsageError: one of the two parts would be empty, or the training split cannot be trained on (see `checks`).
    """
    train, size = checks.check_split(f"{what}, train split", dataset.train), dataset.group_size
    kinds = train.labels if size is None else np.zeros(len(train.labels) // size, int)
    held_out = _chosen(kinds, share)
    if size is not None:
        held_out = np.repeat(held_out, size)
    if held_out.all() or not held_out.any():
        number = len(train.labels)
        raise UsageError(f"{what} has {number} train examples, too few to hold out a share of {share:g} of them")
    return dataset._replace(train=_part(train, ~held_out), test=_part(train, held_out))


def _chosen(kinds: np.ndarray, share: float) -> np.ndarray:
    """Returns a mask [n] of the share of each kind, the first ones in a fixed random order."""
    order = np.random.default_rng(0).permutation(len(kinds))
    mask = np.zeros(len(kinds), bool)
    for kind in np.unique(kinds):
        own = order[kinds[order] == kind]
        number = min(max(round(share * len(own)), 1), len(own) - 1)
        mask[own[:number]] = True
    return mask


def _part(split: RawSplit, mask: np.ndarray) -> RawSplit:
    inputs = split.inputs
    if isinstance(inputs, list):  # images of several sizes
        return RawSplit([inputs[index] for index in np.flatnonzero(mask)], split.labels[mask])
    return RawSplit(inputs[mask], split.labels[mask])
