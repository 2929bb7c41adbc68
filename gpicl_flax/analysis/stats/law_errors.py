"""Compares sizes by how well a law in each predicts the largest models, which were left out of its fit."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gpicl_flax.analysis.stats import seed_draws
from gpicl_flax.analysis.stats.intervals import Estimate
from gpicl_flax.analysis.stats.scaling_law import Law


@dataclasses.dataclass(frozen=True)
class LawErrors:
    """The errors of laws in several sizes.

    Attributes:
      errors: for each size the absolute error at the largest, the mean over laws, from the smallest error on.
      margins: for every size but the first, how much larger its error is than the first's.
    """

    errors: dict[str, Estimate]
    margins: dict[str, Estimate]

    @property
    def best(self) -> str:
        """The size with the smallest error."""
        return next(iter(self.errors))

    @property
    def decided(self) -> bool:
        """Whether the intervals of all margins are above 0. With one seed there are none, and nothing is decided."""
        return all(margin.low > 0 for margin in self.margins.values())


def compare(laws: Mapping[str, Sequence[Law]]) -> LawErrors:
    """Compares laws.

    Args:
      laws: for each size its laws, one or more, of the same architectures in the same order. Laws of the same runs have
        the same draws.
    """
    with_draws = all(law.seeds > 1 for own in laws.values() for law in own)
    # [1 + R] each: the error, and that of every draw
    errors = {size: np.mean([_absolute(law, with_draws) for law in own], axis=0) for size, own in laws.items()}
    order = sorted(errors, key=lambda size: errors[size][0])
    return LawErrors(
        {size: _estimate(errors[size]) for size in order},
        {size: _estimate(errors[size] - errors[order[0]]) for size in order[1:]},
    )


def _absolute(law: Law, with_draws: bool) -> np.ndarray:
    return np.abs(np.append(law.left_out.value, law.left_out_draws if with_draws else []))


def _estimate(values: np.ndarray) -> Estimate:
    return seed_draws.estimate(values[0], values[1:])
