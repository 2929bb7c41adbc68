"""Compares state size and parameter count as predictors of accuracy, over configurations of models.

Larger is assumed to be better or equal, and nothing else is assumed about the shape: the first measure is a monotone
fit. So that its flexibility is no advantage, it is evaluated on data left out of the fit. R2 is 1 minus the squared
error of predicting each configuration from a fit to all others, divided by the variance: 1 is perfect, 0 is no better
than the mean, and it may be negative.

The unit is the configuration, which is the mean of its seeds. Intervals are over configurations. These are drawn with
replacement, all seeds of one together, within each architecture. So the intervals include the noise of seeds, but not
the choice of architectures. All measures use the same draws. The fits are not repeated for each draw, because
configurations that are drawn twice would be both in a fit and left out of it.

No statistics can separate two sizes that grow together. Within one architecture they usually do, and the answer there
is that they cannot be separated.
"""

import dataclasses
import math
import warnings

import numpy as np
import scipy.optimize
import scipy.special

from gpicl_flax.analysis.stats.intervals import CONFIDENCE, Estimate

FEWEST = 6  # configurations that a comparison needs
COLLINEAR = 0.9  # the rank correlation of the two sizes above which they cannot be separated
USEFUL = 0.1  # the R2 that at least one of the two must reach; otherwise neither predicts
_DRAWS = 2_000
_MIDPOINTS, _WIDTHS = 65, 17  # numbers of midpoints and widths of logistic curves

NOT_ENOUGH, NO_VARIATION, COLLINEARITY = "not enough", "no variation", "cannot be separated"
NEITHER, UNDECIDED, STATE, PARAMETERS = "neither", "not distinguishable", "state", "parameters"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Measures of how well one size predicts accuracy.

    Attributes:
      spearman: rank correlation with accuracy.
      kendall: the same as tau-b.
      partial: Spearman's correlation with accuracy, given the other size.
      monotone_r2: the R2 of isotonic regression, on configurations left out.
      sigmoid_r2: the R2 of a logistic curve in the logarithm of the size, on configurations left out.
    """

    spearman: Estimate
    kendall: Estimate
    partial: Estimate
    monotone_r2: Estimate
    sigmoid_r2: Estimate


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of two sizes as predictors of accuracy.

    Attributes:
      verdict: STATE or PARAMETERS: the interval of `difference` is on that side of 0. UNDECIDED: it contains 0.
        NEITHER: neither `monotone_r2` reaches `USEFUL`. COLLINEARITY: the two sizes have a rank correlation of at least
        `COLLINEAR`, or at most its negative. NO_VARIATION: accuracy or one of the sizes is constant. NOT_ENOUGH: fewer
        than `FEWEST` configurations.
      configurations: the number of configurations.
      state, parameters: the measures of each size; None if there are too few configurations or nothing varies.
      difference: monotone_r2 of state minus that of parameters.
      collinearity: Spearman's correlation of the two sizes; NaN if one does not vary.
    """

    verdict: str
    configurations: int
    state: Predictor | None = None
    parameters: Predictor | None = None
    difference: Estimate = Estimate()
    collinearity: float = math.nan

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, in one sentence."""
        if self.verdict == NOT_ENOUGH:
            return f"Not enough runs: {self.configurations} configurations, where a comparison takes {FEWEST}."
        if self.verdict == NO_VARIATION:
            return "Nothing to compare: accuracy, state size or parameter count is the same in all configurations."
        if self.verdict == COLLINEARITY:
            return (
                "State size and parameter count cannot be separated by these runs: their rank correlation is "
                f"{self.collinearity:.2f}, and {COLLINEAR:g} is too much."
            )
        start = {
            STATE: "State size predicts accuracy better than parameter count",
            PARAMETERS: "Parameter count predicts accuracy better than state size",
            UNDECIDED: "State size and parameter count are not distinguishable as predictors of accuracy",
            NEITHER: "Neither state size nor parameter count predicts accuracy",
        }[self.verdict]
        assert self.state and self.parameters  # they are measured, unless the verdict is one of the three above
        first, second, sign = self.state.monotone_r2, self.parameters.monotone_r2, 1
        if self.verdict == PARAMETERS:
            first, second, sign = second, first, -1
        low, high = sorted((sign * self.difference.low, sign * self.difference.high))
        difference = Estimate(sign * self.difference.value, low, high)
        return f"{start}: R2 of a monotone fit {first} against {second}; difference {difference}."


def compare(
    accuracy: np.ndarray, state: np.ndarray, parameters: np.ndarray, architecture: np.ndarray, *, seed: int = 0
) -> Comparison:
    """Compares two sizes as predictors of accuracy.

    Args:
      accuracy: [n], for each configuration the mean over its seeds; finite.
      state: [n], its state size, 0 or more.
      parameters: [n], its parameter count, 0 or more.
      architecture: [n], its name.
      seed: the seed of the draws.
    """
    accuracy, state, parameters = (np.asarray(x, float) for x in (accuracy, state, parameters))
    runs = len(accuracy)
    if runs < FEWEST:
        return Comparison(NOT_ENOUGH, runs)
    if min(map(np.ptp, (accuracy, state, parameters))) == 0:
        return Comparison(NO_VARIATION, runs)
    # All measures use the same draws, so that the interval of their difference accounts for what they share.
    counts = _draws(np.asarray(architecture), np.random.default_rng(seed))
    sizes = [np.log2(1 + size) for size in (state, parameters)]
    between = _spearman(counts, *sizes)
    with_accuracy = [_spearman(counts, size, accuracy) for size in sizes]
    monotone = [_r2(counts, accuracy, _monotone_left_out(size, accuracy)) for size in sizes]
    sigmoid = [_r2(counts, accuracy, _sigmoid_left_out(size, accuracy)) for size in sizes]
    predictors = [
        Predictor(
            _estimate(own),
            _estimate(_kendall(counts, size, accuracy)),
            _estimate(_partial(own, other, between)),
            _estimate(r2),
            _estimate(smooth),
        )
        for size, own, other, r2, smooth in zip(
            sizes, with_accuracy, with_accuracy[::-1], monotone, sigmoid, strict=True
        )
    ]
    difference = _estimate(monotone[0] - monotone[1])
    # Two sizes that grow together cannot be separated, so this comes before any comparison of their R2.
    if abs(between[0]) >= COLLINEAR:
        verdict = COLLINEARITY
    elif max(predictor.monotone_r2.value for predictor in predictors) < USEFUL:
        verdict = NEITHER
    else:
        verdict = STATE if difference.low > 0 else PARAMETERS if difference.high < 0 else UNDECIDED
    return Comparison(verdict, runs, predictors[0], predictors[1], difference, float(between[0]))


def _draws(architecture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns how often each of n configurations is in each draw, [1 + _DRAWS, n]; the first has each once."""
    counts = np.ones((1 + _DRAWS, len(architecture)))
    for name in np.unique(architecture):
        own = np.flatnonzero(architecture == name)
        counts[1:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=_DRAWS)
    return counts


def _estimate(values: np.ndarray) -> Estimate:
    """Returns the first of [1 + _DRAWS] values, with quantiles of the others. Undefined values do not count."""
    tail = (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return Estimate(float(values[0]), float(low), float(high))


def _correlation(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Pearson's correlation in each draw: counts [R, n], x and y [R, n] -> [R]."""
    x, y = (z - (counts * z).sum(1, keepdims=True) / counts.sum(1, keepdims=True) for z in (x, y))
    return _ratio((counts * x * y).sum(1), np.sqrt((counts * x**2).sum(1) * (counts * y**2).sum(1)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns above / below; NaN where nothing varies."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 1e-12)


def _signs(x: np.ndarray) -> np.ndarray:
    return np.sign(x[:, None] - x)


def _spearman(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation: counts [R, n], x and y [n] -> [R]; ties have the mean of their ranks."""
    return _correlation(counts, *(counts @ (1 + _signs(z)).T / 2 for z in (x, y)))


def _kendall(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns tau-b: counts [R, n], x and y [n] -> [R]."""
    x, y = _signs(x), _signs(y)
    both, first, second = (((counts @ pairs) * counts).sum(1) for pairs in (x * y, x**2, y**2))
    return _ratio(both, np.sqrt(first * second))


def _partial(own: np.ndarray, other: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Returns the correlation `own` given the other, from the three pairwise ones, [R]."""
    return _ratio(own - other * between, np.sqrt(np.maximum((1 - other**2) * (1 - between**2), 0)))


def _r2(counts: np.ndarray, accuracy: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns R2: counts [R, n], accuracy and predicted [n] -> [R]."""
    mean = counts @ accuracy / counts.sum(1)
    variance = (counts * (accuracy - mean[:, None]) ** 2).sum(1)
    return 1 - _ratio(counts @ (accuracy - predicted) ** 2, variance)


def _monotone_left_out(size: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Returns the prediction for each configuration by the best nondecreasing fit to all others, [n].

    The fit is linear between the observed sizes and constant beyond them.
    """
    predicted = []
    for own, others in enumerate(~np.eye(len(size), dtype=bool)):
        places, where, weights = np.unique(size[others], return_inverse=True, return_counts=True)
        means = np.bincount(where, accuracy[others]) / weights
        predicted.append(np.interp(size[own], places, scipy.optimize.isotonic_regression(means, weights=weights).x))
    return np.array(predicted)


def _sigmoid_left_out(size: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Returns the prediction for each configuration by the best nondecreasing logistic curve through all others, [n].

    Least squares have several local optima here. For a given midpoint and width, the best floor and height are those of
    a straight line. So all midpoints and widths of a grid are tried, for all configurations left out at once.
    """
    midpoints, widths = (
        np.linspace(size.min(), size.max(), _MIDPOINTS),
        np.ptp(size) * np.geomspace(1 / 50, 2, _WIDTHS),
    )
    curves = scipy.special.expit((size[:, None, None] - midpoints[:, None]) / widths).reshape(len(size), -1)  # [n, G]
    others = (1 - np.eye(len(size))) / (len(size) - 1)
    mean, curve_mean = others @ accuracy, others @ curves  # [n], [n, G]
    covariance = others @ (curves * accuracy[:, None]) - curve_mean * mean[:, None]
    variance = others @ curves**2 - curve_mean**2
    height = np.maximum(covariance, 0) / np.maximum(variance, 1e-12)
    best = (height * (height * variance - 2 * covariance)).argmin(axis=1)  # the squared error, up to a constant
    own = np.arange(len(size))
    return np.clip(mean + height[own, best] * (curves[own, best] - curve_mean[own, best]), 0, 1)
