"""Learning curves: means over sequences at each position, with confidence intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy

CONFIDENCE = 0.95


def mean_curves(measured: Mapping[str, np.ndarray], counted: np.ndarray | None) -> dict[str, list[Any]]:
    """Returns the means over sequences of what is measured, arrays [n, T], at the positions that count in some."""
    length = next(iter(measured.values())).shape[1]
    positions = range(length) if counted is None else np.flatnonzero(counted.any(axis=0)).tolist()
    found = {} if len(positions) == length else {"positions": list(positions)}
    for name in sorted(measured):
        values = measured[name]
        columns = [values] if counted is None else [values[counted[:, at], at][:, None] for at in positions]
        parts = [_with_interval(column) for column in columns]
        for ending, ends in zip(("", "_low", "_high"), zip(*parts, strict=True), strict=True):
            found[f"{name}{ending}"] = np.concatenate(ends).tolist()
    return found


def _with_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns means over the first axis of values [n, P], and the ends of their intervals: Wilson's if they are bool.

    Those of other values are Student's. With one sequence these have no interval: the ends are the mean.
    """
    if values.dtype == bool:
        intervals = [
            scipy.stats.binomtest(int(hits), len(values)).proportion_ci(CONFIDENCE, method="wilson")
            for hits in values.sum(axis=0)
        ]
        low, high = np.array([(interval.low, interval.high) for interval in intervals]).T
        return values.mean(axis=0), low, high
    values = values.astype(np.float64)
    mean = values.mean(axis=0)
    margin = np.zeros_like(mean)
    if len(values) > 1:
        margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * scipy.stats.sem(values, axis=0)
    return mean, mean - margin, mean + margin
