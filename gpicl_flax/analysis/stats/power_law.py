"""A power law for the length of the plateau, where some runs end on their plateau.

log(length) = log(c) + exponent log(x) + noise, with normal noise of constant size: a censored (Tobit) regression by
maximum likelihood. A run that ended on its plateau counts as one that is longer than its last step. Without such runs
this is the least squares line through the logarithms, with its usual interval. A `scaling_law` is fitted to means over
seeds, which do not exist where some runs are censored; so plateaus have this law instead, with the same rule of how
many sizes it takes.
"""

import dataclasses
import math

import numpy as np
import scipy.optimize
import scipy.stats

from gpicl_flax.analysis.stats import scaling_law
from gpicl_flax.analysis.stats.intervals import CONFIDENCE
from gpicl_flax.records.lengths import Lengths

FEWEST = 4  # runs that have left, for two parameters of a line and one of the noise


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """length = coefficient * x ** exponent, approximately.

    Attributes:
      exponent: its 95% interval has the ends `low` and `high`.
      low: Wald's, by the observed information. It uses Student's quantile for the number of runs that have left, minus
        two, and scales the variance as least squares does, so that few runs give a wide interval.
      high: see `low`.
      coefficient: the median length at x = 1.
      scatter: the typical factor between a run and the law, which is the exponential of the standard deviation; 1 means
        none.
      runs: the number of runs.
      left: how many of them left their plateau.
    """

    exponent: float
    low: float
    high: float
    coefficient: float
    scatter: float
    runs: int
    left: int

    def at(self, x: np.ndarray) -> np.ndarray:
        """Returns the median length at x, in the shape of x."""
        return self.coefficient * np.asarray(x, float) ** self.exponent


def fit(x: np.ndarray, lengths: Lengths) -> PowerLaw | str:
    """Fits the lengths of plateaus against x, [n], positive. If they do not allow it, returns the reason.

    A length of 0 steps counts as one step.
    """
    x, left = np.asarray(x, float), lengths.left.astype(bool)
    if left.sum() < FEWEST:
        return f"{left.sum()} of {len(left)} runs have left their plateau, and a fit takes {FEWEST}"
    if (reason := scaling_law.refusal(len(np.unique(x)))) is not None:
        return reason
    if len(np.unique(x[left])) < 2:
        return "runs have left their plateau at one size only, and a fit takes two"
    length = np.log(np.maximum(lengths.steps, 1))
    centre = np.log(x).mean()
    at = np.stack([np.ones(len(x)), np.log(x) - centre], axis=1)  # [n, 2]
    start, residuals, *_ = np.linalg.lstsq(at[left], length[left])
    noise = math.sqrt(residuals[0] / left.sum()) if len(residuals) else 0.0
    if noise < 1e-9:
        return "the lengths have no noise" if left.all() else "the lengths that are known have no noise"
    # In the slopes divided by the noise, and 1 divided by the noise, the likelihood has one maximum (Olsen, 1978).
    found = scipy.optimize.minimize(
        lambda p: _loss(p, at, length, left),
        np.append(start, 1) / noise,
        method="trust-exact",
        jac=lambda p: _gradient(p, at, length, left),
        hess=lambda p: _hessian(p, at, length, left),
        options={"gtol": 1e-7, "maxiter": 1000},
    )
    slope, precision = found.x[1], found.x[2]
    exponent, noise = slope / precision, 1 / precision
    towards = np.array([0, 1, -exponent]) / precision  # the exponent's gradient
    degrees = left.sum() - 2
    variance = towards @ np.linalg.solve(_hessian(found.x, at, length, left), towards) * left.sum() / degrees
    margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * math.sqrt(variance)
    intercept = found.x[0] * noise - exponent * centre
    return PowerLaw(
        float(exponent),
        float(exponent - margin),
        float(exponent + margin),
        math.exp(intercept),
        math.exp(noise * math.sqrt(left.sum() / degrees)),
        len(left),
        int(left.sum()),
    )


def _standardised(p: np.ndarray, at: np.ndarray, length: np.ndarray) -> np.ndarray:
    return p[2] * length - at @ p[:2]


def _loss(p: np.ndarray, at: np.ndarray, length: np.ndarray, left: np.ndarray) -> float:
    """Returns the negative log-likelihood of p = (the line's two numbers, 1) / noise, up to a constant."""
    if p[2] <= 0:
        return math.inf
    z = _standardised(p, at, length)
    return -(left.sum() * math.log(p[2]) - (z[left] ** 2).sum() / 2 + scipy.stats.norm.logsf(z[~left]).sum())


def _hazard(z: np.ndarray) -> np.ndarray:
    return np.exp(scipy.stats.norm.logpdf(z) - scipy.stats.norm.logsf(z))


def _directions(at: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Returns the derivatives of the standardised lengths by p, [n, 3]."""
    return np.column_stack([-at, length])


def _gradient(p: np.ndarray, at: np.ndarray, length: np.ndarray, left: np.ndarray) -> np.ndarray:
    z = _standardised(p, at, length)
    slope = np.where(left, z, _hazard(z))
    return _directions(at, length).T @ slope - np.array([0, 0, left.sum() / p[2]])


def _hessian(p: np.ndarray, at: np.ndarray, length: np.ndarray, left: np.ndarray) -> np.ndarray:
    z = _standardised(p, at, length)
    curvature = np.where(left, 1.0, _hazard(z) * (_hazard(z) - z))
    directions = _directions(at, length)
    return directions.T @ (curvature[:, None] * directions) + np.diag([0, 0, left.sum() / p[2] ** 2])
