"""Tests whether runs end in two clusters: a test of one mode against more, and the two clusters that fit best."""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.mixture import GaussianMixture

FEWEST = 8  # values that a test needs
SIGNIFICANCE = 0.02
SMALLEST = 2  # values in a cluster; a single one is an outlier
SEPARATION = 2.0  # Ashman's D above which two clusters are separate (Ashman, Bird and Zepf, 1994)
_DRAWS = 500
_GRID = 256  # places at which modes are searched
_LEAST = 1e-3  # the smallest bandwidth, in standard deviations


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The result of a test for two clusters.

    Attributes:
      p_value: that of Silverman's test (1981) for a density with a single mode: the fraction of smoothed bootstrap
        samples with several modes, at the smallest bandwidth at which the values have one. It assumes no shape.
      separation: Ashman's D, the distance of the clusters' means in units of their standard deviation.
      size: the number of values in the smaller cluster.
      means: those of the two components of a Gaussian mixture with a shared variance, ascending.
      shares: the fraction of the values in each; they sum to 1.
      cut: the threshold between the clusters, midway between the values next to it.
    """

    p_value: float
    separation: float
    size: int
    means: tuple[float, float]
    shares: tuple[float, float]
    cut: float

    @property
    def bimodal(self) -> bool:
        """Whether a single mode is rejected, and the clusters are separate and no outlier.

        For 32 values from a density with a single mode that is skewed or has heavy tails, about one sample in thirty is
        wrongly found to have two clusters. For a flat density, a borderline case of a single mode, it is one in ten.
        """
        return self.p_value < SIGNIFICANCE and self.separation > SEPARATION and self.size >= SMALLEST


def find(values: np.ndarray, *, seed: int = 0) -> Clusters | str:
    """Finds the two clusters of [n] finite values; if there are too few values, returns a text that says so.

    Args:
      values: [n], finite.
      seed: the seed of the bootstrap.
    """
    values = np.sort(np.asarray(values, float))
    if len(values) < FEWEST:
        return f"{len(values)} runs, where a test takes {FEWEST}"
    scale = values.std()
    if scale < 1e-9:
        return "all values are the same"
    z = (values - values.mean()) / scale
    # Use a shared variance. With separate variances, one component would collapse onto any few values that happen to be
    # close.
    mixture: Any = GaussianMixture(2, covariance_type="tied", n_init=3, reg_covar=1e-4, random_state=seed).fit(
        z[:, None]
    )
    means = np.sort(mixture.means_[:, 0])
    lower = (mixture.predict(z[:, None]) == mixture.means_.argmin()).sum()
    if lower in (0, len(z)):
        return "they are one cluster"
    return Clusters(
        _p_value(z, np.random.default_rng(seed)),
        float((means[1] - means[0]) / np.sqrt(mixture.covariances_.item())),
        int(min(lower, len(z) - lower)),
        tuple((values.mean() + scale * means).tolist()),
        (float(lower / len(z)), float(1 - lower / len(z))),
        float(values[lower - 1 : lower + 1].mean()),
    )


def _p_value(z: np.ndarray, rng: np.random.Generator) -> float:
    """Returns the p value of Silverman's test for one mode of standardised values [n]."""
    # The number of modes of a Gaussian kernel density does not grow with its bandwidth, so there is a smallest one.
    # Two clusters narrower than the places at which modes are searched, one at each end of the values, have their modes
    # at the outermost places, where a mode is only seen with another place beyond it.
    beyond = int(_modes(z[None], _LEAST)[0] < 2)
    bandwidth = scipy.optimize.bisect(lambda h: _modes(z[None], h, beyond)[0] - 1.5, _LEAST, 3.0, xtol=1e-3) + 1e-3
    draws = rng.choice(z, (_DRAWS, len(z))) + bandwidth * rng.standard_normal((_DRAWS, len(z)))
    draws /= np.sqrt(1 + bandwidth**2)  # with the variance of the values, whose mean is 0
    return float((1 + (_modes(draws, bandwidth, beyond) > 1).sum()) / (1 + _DRAWS))


def _modes(z: np.ndarray, bandwidth: float, beyond: int = 0) -> np.ndarray:
    """Returns the number of modes in the densities of R samples: z [R, n] -> [R].

    `beyond` more places are searched on each side of the values.
    """
    counts = []
    for sample in z:  # one at a time, because R x n x grid would be large
        low, high = sample.min(), sample.max()
        margin = beyond * (high - low) / (_GRID - 1)
        grid = np.linspace(low - margin, high + margin, _GRID + 2 * beyond)
        density = np.exp(-0.5 * ((grid - sample[:, None]) / bandwidth) ** 2).sum(axis=0)
        rises = np.sign(np.diff(density))
        rises = rises[rises != 0]
        counts.append(np.sum((rises[:-1] > 0) & (rises[1:] < 0)))
    return np.array(counts)
