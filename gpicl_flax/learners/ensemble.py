"""The members of an ensemble of in-context learners.

They differ in projection, labels, and which examples they read.
"""

import numpy as np


def standardize(X: np.ndarray, *, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each feature of X [n, features]; or, shared, of all together.

    What is constant keeps a scale of 1.
    """
    if shared:
        mean, scale = standardize(X.reshape(-1, 1))
        return np.repeat(mean, X.shape[1]), np.repeat(scale, X.shape[1])
    scale = X.std(axis=0)
    # Equal numbers can have a standard deviation of the size of their rounding.
    constant = scale <= 10 * np.finfo(X.dtype).eps * np.abs(X).max(axis=0)
    return X.mean(axis=0), np.where(constant, 1.0, scale)


def projections(rng: np.random.Generator, num_members: int, num_features: int, num_inputs: int) -> np.ndarray:
    """Projections [members, features, X] with iid normal entries.

    Standardised features give inputs with a mean square of one, as those of training tasks.
    """
    return rng.standard_normal((num_members, num_features, num_inputs), np.float32) / np.float32(num_features**0.5)


def label_permutations(rng: np.random.Generator, num_members: int, num_classes: int) -> np.ndarray:
    """[members, C]: what stands for each class."""
    return rng.permuted(np.tile(np.arange(num_classes, dtype=np.int32), (num_members, 1)), axis=1)


def contexts(rng: np.random.Generator, labels: np.ndarray, num_members: int, size: int) -> np.ndarray:
    """Rows [members, size] of labels [n] that each member reads, in random order, none twice by one member.

    Members take one piece after another of orders in which every piece holds each class in proportion. No example is in
    two contexts more than any other, so that all are read if members x size >= n.
    """
    rows = []
    left = np.empty(0, int)
    for _ in range(num_members):
        taken, left = left[:size], left[size:]
        if len(taken) < size:  # the order is at its end; those that it still had are the last of the next
            order = _stratified(rng, labels)
            again = np.isin(order, taken)
            order = np.concatenate([order[~again], order[again]])
            taken, left = np.concatenate([taken, order[: size - len(taken)]]), order[size - len(taken) :]
        rows.append(rng.permutation(taken))
    return np.array(rows)


def _stratified(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """All rows, in an order that spreads each class evenly."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(place, kind="stable")
