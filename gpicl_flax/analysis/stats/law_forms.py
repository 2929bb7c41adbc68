"""The forms of scaling laws: a power law with an offset, for losses, and a saturating one, for accuracies.

Both are a line in one feature of the size n, whose shape has one or two more constants: y = a + b feature(n; shape).
The best line of a given shape is known in closed form, so that only shapes have to be searched (variable projection,
Golub and Pereyra, 1973).
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import scipy.special

_STEEPEST = 6.0  # alpha x the least distance of two sizes, or a 25th of all: a step between them
_FLATTEST = 0.05  # alpha x the distance of the smallest from the largest: a line in log(n)


class Box(NamedTuple):
    """The bounds of a line, y = a + b feature: each is (lowest, highest), and may be infinite or one value."""

    intercept: tuple[float, float]
    slope: tuple[float, float]


class Form(Protocol):
    """A form of laws.

    It has three constants. Arrays [..., 3] hold them in their order, the second as its logarithm, which may be beyond
    what a number can hold where sizes are large and close together.

    Attributes:
      constants: the names of its constants.
      formula: the law in these names.
      box: the bounds of its line.
    """

    constants: ClassVar[tuple[str, ...]]
    formula: ClassVar[str]

    @property
    def box(self) -> Box: ...

    def shapes(self, log_n: np.ndarray) -> list[np.ndarray]:
        """Returns the values from which a search begins, from bound to bound, for each of the Q constants of a shape.

        Args:
          log_n: [K], the logarithms of the sizes, ascending.
        """
        ...

    def feature(self, log_n: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Returns the feature: log_n [K], shape [..., Q] -> [..., K]."""
        ...

    def to_constants(self, shape: np.ndarray, line: np.ndarray, log_unit: float) -> np.ndarray:
        """Returns the constants [..., 3] of shape [..., Q] and line (a, b) [..., 2], of sizes in a unit."""
        ...

    def at(self, n: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Returns the law: n [N], constants [..., 3] -> [..., N]."""
        ...


@dataclasses.dataclass(frozen=True)
class OffsetPower:
    """L = E + A n^-alpha: what a loss tends to, and how it comes there (Hestness et al., 2017, arXiv 1712.00409).

    A is at least 0 and E at least `floor`. The bounds of alpha are beyond what sizes can tell: a line in log(n), and a
    step between two sizes.

    Attributes:
      floor: the lowest loss there can be: 0 for cross entropy and squared error, -inf for a density's likelihood.
    """

    floor: float = 0.0

    constants: ClassVar[tuple[str, ...]] = ("E", "A", "alpha")
    formula: ClassVar[str] = "L = E + A n^-alpha"

    @property
    def box(self) -> Box:
        """E is the intercept and A the slope."""
        return Box((self.floor, math.inf), (0.0, math.inf))

    def shapes(self, log_n: np.ndarray) -> list[np.ndarray]:
        """Returns values of log(alpha)."""
        return [_log_alphas(log_n, 64)]

    def feature(self, log_n: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Returns n^-alpha."""
        return np.exp(-np.exp(shape[..., :1]) * log_n)

    def to_constants(self, shape: np.ndarray, line: np.ndarray, log_unit: float) -> np.ndarray:
        """Returns E, log(A) and alpha. A is that of n = 1, not of the unit."""
        alpha = np.exp(shape[..., 0])
        with np.errstate(divide="ignore"):  # A may be 0
            log_factor = np.log(line[..., 1]) + alpha * log_unit
        return np.stack([line[..., 0], log_factor, alpha], axis=-1)

    def at(self, n: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Returns the losses."""
        offset, log_factor, alpha = (constants[..., place, None] for place in range(3))
        return offset + np.exp(log_factor - alpha * np.log(n))


@dataclasses.dataclass(frozen=True)
class Saturating:
    """acc = chance + (top - chance) / (1 + (half / n)^alpha): Hill's curve, which is a logistic one in log(n).

    It cannot leave the range of accuracies: small models are at chance, which a power law runs below. Large ones come
    to the top as a power law does, since top - acc tends to (top - chance) (half / n)^alpha. The top is between chance
    and 1, alpha as in `OffsetPower`, and half, the size at which half of what can be gained is gained, at most the
    whole (logarithmic) range of sizes away from them.

    Attributes:
      chance: the accuracy of guessing, which is known and not fitted.
    """

    chance: float

    constants: ClassVar[tuple[str, ...]] = ("top", "half", "alpha")
    formula: ClassVar[str] = "acc = chance + (top - chance) / (1 + (half / n)^alpha)"

    @property
    def box(self) -> Box:
        """The intercept is chance, and the slope is top - chance."""
        return Box((self.chance, self.chance), (0.0, 1 - self.chance))

    def shapes(self, log_n: np.ndarray) -> list[np.ndarray]:
        """Returns values of log(alpha) and of log(half), which are close together among the sizes."""
        low, high = log_n[[0, -1]]
        span = high - low
        halves = [
            np.linspace(low - span, low, 8)[:-1],
            np.linspace(low, high, 40),
            np.linspace(high, high + span, 8)[1:],
        ]
        return [_log_alphas(log_n, 24), np.concatenate(halves)]

    def feature(self, log_n: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Returns the share of what can be gained that is gained."""
        return scipy.special.expit(np.exp(shape[..., :1]) * (log_n - shape[..., 1:2]))

    def to_constants(self, shape: np.ndarray, line: np.ndarray, log_unit: float) -> np.ndarray:
        """Returns top, log(half) and alpha."""
        return np.stack([self.chance + line[..., 1], shape[..., 1] + log_unit, np.exp(shape[..., 0])], axis=-1)

    def at(self, n: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Returns the accuracies."""
        top, log_half, alpha = (constants[..., place, None] for place in range(3))
        return self.chance + (top - self.chance) * scipy.special.expit(alpha * (np.log(n) - log_half))


def named(form: Form, constants: np.ndarray) -> dict[str, np.ndarray]:
    """Returns constants [..., 3] by their names, none as a logarithm: [...] each."""
    first, logarithm, last = np.moveaxis(constants, -1, 0)
    with np.errstate(over="ignore"):
        return dict(zip(form.constants, (first, np.exp(logarithm), last), strict=True))


def as_array(first: float, second: float, last: float) -> np.ndarray:
    """Returns the array, [3], of constants, none of which is given as a logarithm."""
    return np.array([first, math.log(second), last])


def _log_alphas(log_n: np.ndarray, count: int) -> np.ndarray:
    span = log_n[-1] - log_n[0]
    least = max(np.diff(log_n).min(), span / 25)
    return np.linspace(math.log(_FLATTEST / span), math.log(_STEEPEST / least), count)
