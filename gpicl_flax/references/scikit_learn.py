"""Estimators of scikit-learn, fitted on the host to the examples before given positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from gpicl_flax.errors import UsageError

CLASSIFIERS = {
    "logistic_regression": LogisticRegression(max_iter=1000),
    "svm": SVC(),
    "nearest_neighbours": KNeighborsClassifier(),
    "random_forest": RandomForestClassifier(random_state=0),
}
# Garg et al. 2022 (arXiv 2208.01066) compare sparse linear functions with Lasso, and trees with boosted trees.
REGRESSORS = {
    "lasso": Lasso(alpha=0.01, fit_intercept=False, max_iter=100_000),
    "boosted_trees": GradientBoostingRegressor(random_state=0),
}


def class_probabilities(
    classifier: Any,
    inputs: np.ndarray,
    labels: np.ndarray,
    positions: Sequence[int],
    num_classes: int,
    *,
    standardize: bool = False,
) -> np.ndarray:
    """Predicts the class at each given position by a classifier fitted to the examples before it.

    A classifier without `predict_proba`, such as a support vector machine, gives its class the probability 1.

    Args:
      classifier: a scikit-learn classifier, such as one of CLASSIFIERS. It stays as it is: copies are fitted. Its
        `n_neighbors`, if it has them, are limited to the number of examples.
      inputs: [B, T, X].
      labels: [B, T] int in 0..C-1; examples with label -1 are not learned from.
      positions: P positions in 0..T-1.
      num_classes: C.
      standardize: give each feature mean 0 and variance 1 over the examples.

    Returns:
      Probabilities [B, P, C] float64. They are uniform without examples; if all examples have one class, it has 1.

    Raises:
      UsageError: a position is not in 0..T-1.
    """
    probabilities = np.zeros((len(inputs), len(positions), num_classes))
    for row, column, x, y, query in _problems(inputs, labels, positions):
        x, y = x[y >= 0], y[y >= 0]
        seen = np.unique(y)
        if len(seen) == 0:
            probabilities[row, column] = 1 / num_classes
        elif len(seen) == 1:  # which many classifiers refuse to fit
            probabilities[row, column, seen] = 1
        else:
            if standardize:
                scaler = StandardScaler().fit(x)
                x, query = np.asarray(scaler.transform(x)), np.asarray(scaler.transform(query))
            fitted = _fit(classifier, x, y)
            if hasattr(fitted, "predict_proba"):
                probabilities[row, column, seen] = fitted.predict_proba(query)[0]
            else:
                probabilities[row, column, fitted.predict(query)] = 1
    return probabilities


def numbers(regressor: Any, inputs: np.ndarray, targets: np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """Predicts the number at each given position by a regressor fitted to the examples before it.

    Args:
      regressor: a scikit-learn regressor, such as one of REGRESSORS. It stays as it is: copies are fitted.
      inputs: [B, T, X].
      targets: [B, T].
      positions: P positions in 0..T-1.

    Returns:
      Predictions [B, P] float64; 0 without examples.

    Raises:
      UsageError: a position is not in 0..T-1.
    """
    predictions = np.zeros((len(inputs), len(positions)))
    for row, column, x, y, query in _problems(inputs, targets, positions):
        if len(y):
            predictions[row, column] = _fit(regressor, x, y).predict(query)[0]
    return predictions


def _problems(inputs, targets, positions):
    """Yields row, column, the examples before the position, and its input [1, X], for every sequence and position."""
    inputs, targets, length = np.asarray(inputs, np.float64), np.asarray(targets), np.shape(inputs)[1]
    if not all(0 <= position < length for position in positions):
        raise UsageError(f"positions must be in 0..{length - 1}, not {list(positions)}")
    for row in range(len(inputs)):
        for column, t in enumerate(positions):
            yield row, column, inputs[row, :t], targets[row, :t], inputs[row, t : t + 1]


def _fit(estimator: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Returns a copy of an estimator, fitted to examples."""
    fitted: Any = clone(estimator)
    neighbours = fitted.get_params().get("n_neighbors")
    if neighbours is not None:
        fitted.set_params(n_neighbors=min(neighbours, len(x)))
    return fitted.fit(x, y)
