"""Resamples whole seeds: every draw is a weighted mean of seeds, each with all of its sizes.

Drawing seeds with replacement gives intervals that are too narrow: the spread of S values is estimated too small by
(S - 1) / S, and its uncertainty is ignored. With three seeds, such 95% intervals hold the truth in about three of four
cases. Here weights are normal, with their spread divided by an independent chi variable, so that the quantiles of a
weighted mean are Student's interval, exactly, for every size and every combination of sizes. Nothing is assumed about
how the sizes of a seed go together. For what is computed from the means, such as a law, these are generalized
confidence intervals (Weerahandi, 1993, Journal of the American Statistical Association 88).
"""

import math
from collections.abc import Callable

import numpy as np

from gpicl_flax.analysis.stats.intervals import CONFIDENCE, Estimate

Resample = Callable[[int, int, np.random.Generator], np.ndarray]  # as `weights`


def weights(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the weights of seeds in each draw, [draws, seeds]: each row sums to 1, and weights may be negative.

    For values [seeds, K], `weights @ values` are draws of their mean.
    """
    if seeds < 2:
        raise ValueError("one seed has no spread")
    normal = rng.standard_normal((draws, seeds))
    normal -= normal.mean(axis=1, keepdims=True)
    heavy = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(draws, 1)))
    return 1 / seeds + normal * heavy / math.sqrt(seeds * (seeds - 1))


def with_replacement(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the weights of the plain bootstrap, for comparison: seeds drawn with replacement, [draws, seeds]."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def estimate(value: float, draws: np.ndarray) -> Estimate:
    """Returns a value with the 95% interval of its draws, [R]; without draws the interval is NaN."""
    if not len(draws):
        return Estimate(float(value))
    low, high = ends(draws)
    return Estimate(float(value), float(low), float(high))


def ends(draws: np.ndarray) -> np.ndarray:
    """Returns the ends of the 95% intervals of draws: [R, ...] -> [2, ...]."""
    tail = (1 - CONFIDENCE) / 2
    # The quantiles whose intervals are not too narrow on average, however few draws there are.
    return np.quantile(draws, [tail, 1 - tail], axis=0, method="weibull")
