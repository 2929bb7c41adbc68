"""Scaling laws: accuracy or loss against a size, fitted to the means over seeds, with intervals over seeds.

Whole seeds are resampled (see `seed_draws`), and the law is fitted to each draw, within the same bounds. So all
intervals, of constants, of the law at any size, and of its error, come from the same draws. No law is fitted to fewer
than `FEWEST` sizes: it has three constants.
"""

import dataclasses
import functools

import numpy as np

from gpicl_flax.analysis.stats import law_forms, law_search, seed_draws
from gpicl_flax.analysis.stats.intervals import Estimate
from gpicl_flax.analysis.stats.law_forms import Form

FEWEST = 5  # sizes that a law takes
_SLIGHT = 0.01  # of the spread of the means: a law that rises by less is the best level line through falling values


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """A law that was fitted.

    Attributes:
      form: its form.
      sizes: [K], ascending.
      values: [S, K], those of each seed.
      weights: [R, S], those of the seeds in each draw; R = 0 for a single seed, which has no interval.
      fitted: [3], the constants, as `law_forms.Form` holds them.
      drawn: [R, 3], those of each draw.
    """

    form: Form
    sizes: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    fitted: np.ndarray
    drawn: np.ndarray

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def constants(self) -> dict[str, Estimate]:
        """The constants by their names."""
        drawn = law_forms.named(self.form, self.drawn)
        fitted = law_forms.named(self.form, self.fitted)
        return {name: seed_draws.estimate(value.item(), drawn[name]) for name, value in fitted.items()}

    def at(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the law at sizes [N], and the ends of its 95% interval there, [N] each; NaN for a single seed."""
        value = self.form.at(n, self.fitted)
        if not len(self.drawn):
            return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
        low, high = seed_draws.ends(self.form.at(n, self.drawn))
        return value, low, high

    @functools.cached_property
    def left_out(self) -> Estimate:
        """The error at the largest size: the law that is fitted without it, minus the mean there."""
        return seed_draws.estimate(self._left_out[0], self.left_out_draws)

    @property
    def left_out_draws(self) -> np.ndarray:
        """The same error in each draw, [R]."""
        return self._left_out[1:]

    @functools.cached_property
    def _left_out(self) -> np.ndarray:
        fitted, drawn = _fit(self.form, self.sizes[:-1], self.values[:, :-1], self.weights)
        predicted = self.form.at(self.sizes[-1:], np.concatenate([fitted[None], drawn]))[:, 0]
        last = self.values[:, -1]
        return predicted - np.append(last.mean(), self.weights @ last)


def fit(
    sizes: np.ndarray,
    values: np.ndarray,
    form: Form,
    *,
    draws: int = 500,
    seed: int = 0,
    resample: seed_draws.Resample = seed_draws.weights,
) -> Law | str:
    """Fits a law. If the values do not allow it, returns a text that says why.

    Args:
      sizes: [K], positive, ascending.
      values: [S, K], those of each seed, finite.
      form: `law_forms.OffsetPower` or `law_forms.Saturating`.
      draws: the number of draws behind intervals.
      seed: the seed of the draws. Laws of the same runs that are compared need the same.
      resample: makes the draws.
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    if not (np.diff(np.append(0, sizes)) > 0).all():
        raise ValueError("sizes have to be positive, and ascending")
    if (reason := refusal(len(sizes))) is not None:
        return reason
    seeds = len(values)
    weights = resample(seeds, draws, np.random.default_rng(seed)) if seeds > 1 else np.empty((0, seeds))
    fitted, drawn = _fit(form, sizes, values, weights)
    means = values.mean(axis=0)
    if abs(np.diff(form.at(sizes[[0, -1]], fitted))[0]) <= max(_SLIGHT * np.ptp(means), 1e-9 * abs(means).max()):
        return "the values do not get better with the size"
    return Law(form, sizes, values, weights, fitted, drawn)


def refusal(sizes: int) -> str | None:
    """Returns why no law is fitted to so many sizes; None if it is."""
    if sizes >= FEWEST:
        return None
    return f"{sizes} {'size' if sizes == 1 else 'sizes'}, where a law takes {FEWEST}"


def _fit(form: Form, sizes: np.ndarray, values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the constants of the law of the means, [3], and those of each draw, [R, 3]."""
    log_n = np.log(sizes)
    unit = log_n.mean()  # in it, sizes are about 1, and constants do not depend on the unit in which they are given
    log_n = log_n - unit
    curves = np.concatenate([values.mean(axis=0)[None], weights @ values])
    shapes, lines = law_search.best(form, log_n, curves)
    shapes[0], lines[0] = law_search.finished(form, log_n, curves[0], shapes[0])
    constants = form.to_constants(shapes, lines, unit)
    return constants[0], constants[1:]
