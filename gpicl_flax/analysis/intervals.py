"""The 95% interval of a mean over runs, as figures draw it."""

from typing import NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A mean with the ends of its 95% interval, which are NaN of one value."""

    value: float
    low: float
    high: float


def of_mean(values: np.ndarray) -> Mean:
    """The mean of [n] values, one or more, with Student's interval."""
    values = np.asarray(values, float)
    if len(values) == 1:
        return Mean(float(values[0]), np.nan, np.nan)
    margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * scipy.stats.sem(values)
    return Mean(float(values.mean()), float(values.mean() - margin), float(values.mean() + margin))
