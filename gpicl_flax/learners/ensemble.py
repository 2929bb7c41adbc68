"""The estimators of an ensemble of in-context learners.

They differ in their projections, their labels, and the examples that they read.
"""

import numpy as np


def projections(rng: np.random.Generator, num_estimators: int, num_features: int, num_inputs: int) -> np.ndarray:
    """Draws projections [estimators, features, X] with iid normal entries.

    Standardised features give inputs with a mean square of one, like those of training tasks.
    """
    return rng.standard_normal((num_estimators, num_features, num_inputs), np.float32) / np.float32(num_features**0.5)


def label_permutations(rng: np.random.Generator, num_estimators: int, num_classes: int) -> np.ndarray:
    """Draws the label that represents each class, [estimators, C]."""
    return rng.permuted(np.tile(np.arange(num_classes, dtype=np.int32), (num_estimators, 1)), axis=1)


def contexts(rng: np.random.Generator, labels: np.ndarray, num_estimators: int, size: int) -> np.ndarray:
    """Draws the rows [estimators, size] of labels [n] that each estimator reads, in random order and none twice.

    Estimators take successive pieces of orders in which every piece contains each class in proportion. The numbers of
    contexts that contain two examples differ by at most one, so that all examples are read if estimators x size >= n.
    """
    rows = []
    left = np.empty(0, int)
    for _ in range(num_estimators):
        taken, left = left[:size], left[size:]
        if len(taken) < size:  # the order is at its end; its last examples also come last in the next order
            order = _stratified(rng, labels)
            again = np.isin(order, taken)
            order = np.concatenate([order[~again], order[again]])
            taken, left = np.concatenate([taken, order[: size - len(taken)]]), order[size - len(taken) :]
        rows.append(rng.permutation(taken))
    return np.array(rows)


def _stratified(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Returns all rows, in an order that spreads each class evenly."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(place, kind="stable")
