"""Brings features of any finite size to the scale of the inputs that a learner was trained on."""

import dataclasses

import numpy as np

# The layers of a model square their inputs in float32, which ends at 3e38.
MAX_STANDARDISED = 1e15

_ORDINARY = 1e-30, 1e30  # sizes of features whose unit can be taken as it is


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """The mean and the scale of each feature.

    Features are first multiplied by a power of two, so that no square overflows or vanishes. That is exact: it changes
    no bit of a result which needs no such help.

    Attributes:
      exponent: of the power of two that each feature is divided by, [features].
      mean, scale: of each feature after this division, [features].
    """

    exponent: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, *, shared: bool = False) -> "Standardizer":
        """Measures X [n, features], float64 and finite: each feature or, if shared, all features together."""
        if shared:
            one = cls.fit(X.reshape(-1, 1))
            return cls(*(np.repeat(x, X.shape[1]) for x in (one.exponent, one.mean, one.scale)))
        size = np.abs(X).max(axis=0)
        exponent = np.frexp(size)[1]
        X = np.ldexp(X, -exponent)
        scale = X.std(axis=0)
        # Equal numbers can have a standard deviation as large as their rounding error.
        constant = scale <= 10 * np.finfo(X.dtype).eps * np.ldexp(size, -exponent)
        return cls(exponent, X.mean(axis=0), np.where(constant, np.ldexp(_scale_of_constant(size), -exponent), scale))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Returns standardised X [n, features], float64; infinite where it overflows."""
        with np.errstate(over="ignore"):
            return (np.ldexp(X, -self.exponent) - self.mean) / self.scale


def first_outlier(standardised: np.ndarray) -> tuple[int, int] | None:
    """Returns row and column of the first of these numbers [n, features] that no model can read, or None."""
    far = np.abs(standardised) > MAX_STANDARDISED
    if not far.any():
        return None
    row = int(far.any(axis=1).argmax())
    return row, int(far[row].argmax())


def _scale_of_constant(size: np.ndarray) -> np.ndarray:
    """Returns the scale of constant features, of which nothing but their size [features] is known.

    It is 1, unless that is out of all proportion to the feature or, if it is zero, to the largest other one. It exceeds
    the rounding error of the mean in any case.
    """
    reference = np.where(size == 0, size.max(), size)
    ordinary = (reference == 0) | (reference > _ORDINARY[0]) & (reference < _ORDINARY[1])
    return np.maximum(np.where(ordinary, 1.0, reference), size * 2.0**-32)
