"""The lengths of plateaus, where some runs end on their plateau: Kaplan-Meier curves, medians, speed-ups.

A run that was still on its plateau at its last step is censored there: its plateau is longer. So is a run that diverged
on its plateau, although the reason for its end may depend on the plateau. Curves with many such runs must be read with
care.

Few runs allow few statements. One run has a length and a ratio, but no interval and no p value. With five runs, the
interval of a median usually has no upper end, even if all have left: by chance alone, all five are below the median
once in 32 times. A bootstrap does not go beyond the observed runs, so with fewer than five runs a speed-up has no
interval. The p value of a permutation test has a minimum that depends on the number of runs: 0.1 for three against
three.
"""

import dataclasses
import math
import warnings

import numpy as np
import scipy.stats

from gpicl_flax.records.lengths import Lengths, kaplan_meier

CONFIDENCE = 0.95
_RESAMPLES = 2_000
_PERMUTATIONS = 10_000  # up to seven runs against seven, all permutations; otherwise this many random ones
_FEWEST = 5  # runs whose range contains their median about 19 times in 20: 1 - 2 / 2^5
_ROUNDING = 1e-9  # the rounding error of shares as floating point numbers


@dataclasses.dataclass(frozen=True)
class Curve:
    """The fraction of runs that are still on their plateau, by the Kaplan-Meier estimator: a step function.

    Attributes:
      steps: [m], at which runs left or ended, in ascending order.
      share: [m], the fraction from that step until the next; it is 1 before the first.
      low: [m], with `high` the 95% log-log interval. It is NaN before the first run has left, after the last has left,
        and for a single run.
      high: [m].
    """

    steps: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclasses.dataclass(frozen=True)
class Median:
    """The median length of the plateaus of a group, in steps.

    Attributes:
      steps: the first step by which half of the runs have left; inf: longer than the budget.
      low: with `high` the 95% interval: where the curve's log-log interval crosses one half. inf: beyond the budget.
        NaN: no interval, because there is a single run or none has left.
      high: see `low`.
      budget: the longest time that any of the runs was observed.
      runs: the number of runs.
      left: how many of them left.
    """

    steps: float
    low: float
    high: float
    budget: float
    runs: int
    left: int


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """How many times shorter the median plateau of a group is than that of a baseline.

    Attributes:
      ratio: median of the baseline / median of the group. If one of them is beyond its budget, the bound given by the
        budget; NaN if both are.
      bound: '' for a ratio, 'at least' if the baseline is beyond its budget, 'at most' if the group is, 'unknown' if
        both are.
      low: with `high` the 95% bootstrap interval over runs: the quantiles of the ratio over draws of runs with
        replacement. A draw without a median counts as its bound at one end and as unbounded (0 or inf) at the other.
        NaN if one of them has fewer than five runs.
      high: see `low`.
      p_value: that of the two-sided permutation test on the log-rank statistic, for the hypothesis that both leave
        alike. NaN if one of them has a single run or there is nothing to compare, because no run has left.
    """

    ratio: float
    bound: str
    low: float
    high: float
    p_value: float


def curve(lengths: Lengths) -> Curve:
    """Returns the Kaplan-Meier curve of a group."""
    survival = kaplan_meier(lengths)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        interval = survival.confidence_interval(CONFIDENCE, method="log-log")
    return Curve(survival.quantiles, survival.probabilities, interval.low.probabilities, interval.high.probabilities)


def median(lengths: Lengths) -> Median:
    """Returns the median length with its interval."""
    estimate, runs, left = curve(lengths), len(lengths.steps), int(lengths.left.sum())
    low = high = math.nan
    if runs > 1 and left:
        # If all have left, the interval is undefined. Its lower end is 0 there.
        low = _first(estimate.steps, (estimate.low <= 0.5) | (estimate.share < _ROUNDING))
        high = _first(estimate.steps, estimate.high <= 0.5)
    steps = _first(estimate.steps, estimate.share <= 0.5 + _ROUNDING)
    return Median(steps, low, high, lengths.budget, runs, left)


def _first(steps: np.ndarray, holds: np.ndarray) -> float:
    return float(steps[np.argmax(holds)]) if holds.any() else math.inf


def speed_up(baseline: Lengths, group: Lengths, seed: int = 0) -> SpeedUp:
    """Compares the median plateau of a group with a baseline's. `seed` is that of the random draws."""
    (low,), (high,) = _bounds(baseline.steps[None], baseline.left[None], group.steps[None], group.left[None])
    bound = {(False, False): "", (False, True): "at least", (True, False): "at most", (True, True): "unknown"}[
        bool(low == 0), bool(math.isinf(high))
    ]
    ratio = {"": low, "at least": low, "at most": high, "unknown": math.nan}[bound]
    rng = np.random.default_rng(seed)
    low, high = _interval(baseline, group, rng)
    return SpeedUp(float(ratio), bound, low, high, _log_rank(baseline, group, rng))


def _interval(baseline: Lengths, group: Lengths, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the bootstrap interval of the ratio of medians."""
    if min(len(baseline.steps), len(group.steps)) < _FEWEST:
        return math.nan, math.nan
    drawn = []  # scipy.stats.bootstrap interpolates between ratios, but these may be infinite
    for lengths in (baseline, group):
        rows = rng.integers(len(lengths.steps), size=(_RESAMPLES, len(lengths.steps)))
        drawn += [lengths.steps[rows], lengths.left[rows]]
    lows, highs = _bounds(*drawn)
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(lows, tail, method="lower")), float(np.quantile(highs, 1 - tail, method="higher"))


def _bounds(steps, left, group_steps, group_left) -> tuple[np.ndarray, np.ndarray]:
    """Returns bounds of the ratio of medians, for R baselines [R, n] and groups [R, m]: two arrays [R]."""
    baseline, group = _medians(steps, left), _medians(group_steps, group_left)
    low = np.where(np.isinf(baseline), steps.max(axis=-1), baseline) / group
    high = baseline / np.where(np.isinf(group), group_steps.max(axis=-1), group)
    return low, high


def _medians(steps: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Returns the Kaplan-Meier medians of R groups of n runs, [R, n] -> [R].

    They equal those of `median`, but are fast for a bootstrap's many groups.
    """
    order = np.lexsort((~left, steps), axis=-1)  # runs that end at a step were still present when others left at it
    steps, left = np.take_along_axis(steps, order, axis=-1), np.take_along_axis(left, order, axis=-1)
    share = np.cumprod(1 - left / np.arange(left.shape[-1], 0, -1), axis=-1)
    half = share <= 0.5 + _ROUNDING
    first = np.take_along_axis(steps, half.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return np.where(half.any(axis=-1), first, math.inf)


def _until(lengths: Lengths, budget: float) -> Lengths:
    """Returns the lengths as if all runs had ended at the budget."""
    return Lengths(np.minimum(lengths.steps, budget), lengths.left & (lengths.steps <= budget))


def _log_rank(baseline: Lengths, group: Lengths, rng: np.random.Generator) -> float:
    """Returns the p value of `SpeedUp`. scipy.stats.logrank assumes a normal statistic, which is wrong for few runs."""
    watched, runs = min(baseline.budget, group.budget), len(baseline.steps)
    # The runs that are permuted must have been watched for the same time.
    baseline, group = _until(baseline, watched), _until(group, watched)
    steps, left = (np.concatenate(pair) for pair in ((baseline.steps, group.steps), (baseline.left, group.left)))
    # The statistic is a sum over the runs of a group: those that left, minus those expected to while each was present.
    at, leave = np.unique(steps[left], return_counts=True)
    hazard = leave / (steps >= at[:, None]).sum(axis=1)
    scores = left - (hazard * (steps[:, None] >= at)).sum(axis=1)
    if min(runs, len(group.steps)) == 1 or np.ptp(scores) < _ROUNDING:
        return math.nan
    return float(
        scipy.stats.permutation_test(
            (scores[:runs], scores[runs:]),
            lambda x, y, axis: x.sum(axis=axis),
            vectorized=True,
            n_resamples=_PERMUTATIONS,
            rng=rng,
        ).pvalue
    )
