"""Numbers with 95% intervals, and those of means over runs."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

CONFIDENCE = 0.95
WORDS = (
    "Means over runs that differ in their seeds, with Student's 95% intervals, or those of their sequences together if "
    "they are wider; of a single run with Wilson's over its sequences."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; NaN where it is not defined."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def of_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean of two or more runs, [n, ...] -> [...], and the ends of Student's interval."""
    mean, margin = values.mean(axis=0), _margin(len(values), scipy.stats.sem(values, axis=0))
    return mean, mean - margin, mean + margin


def of_runs_or_sequences(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns `of_runs`, or for a single run its own interval over sequences, between `low` and `high` [n, ...].

    Two runs can be similar by chance, so an interval is at least as wide as the one of all their sequences together.
    """
    if len(values) == 1:
        return values[0], low[0], high[0]
    mean = values.mean(axis=0)
    margin = _margin(len(values), scipy.stats.sem(values, axis=0), (high - low).mean(axis=0))
    return mean, mean - margin, mean + margin


def table(rows: pd.DataFrame, keys: Sequence[str], number: str) -> pd.DataFrame:
    """Returns the mean of a column over the rows, one for each run, that have the same keys.

    A run's own interval is in the columns of its name with _low and _high. Without them a single run has none. See
    `of_runs_or_sequences` for the intervals.

    Returns:
      The keys, mean, low, high, and the number of runs; in the order of the keys.
    """
    rows = rows.dropna(subset=[number])
    own = {end: rows.get(f"{number}_{end}", pd.Series(math.nan, rows.index)) for end in ("low", "high")}
    groups = rows.assign(_low=own["low"], _high=own["high"]).groupby(list(keys), dropna=False)
    found = groups[number].agg(mean="mean", runs="count")
    several = found["runs"] > 1
    margin = _margin(found["runs"], groups[number].sem(), groups["_high"].mean() - groups["_low"].mean())
    found["low"] = (found["mean"] - margin).where(several, groups["_low"].first())
    found["high"] = (found["mean"] + margin).where(several, groups["_high"].first())
    return found.reset_index()[[*keys, "mean", "low", "high", "runs"]]


def _margin(runs, error, width: float | np.ndarray | pd.Series = math.nan):
    """Returns Student's margin, given the number of runs and their standard error of the mean.

    It is at least half the mean width of their own intervals divided by the square root of their number. Without such
    intervals (NaN) it is Student's.
    """
    return np.fmax(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1) * error, width / 2 / runs**0.5)
