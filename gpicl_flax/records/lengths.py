"""The lengths of plateaus where some runs end on theirs, and the fraction of runs that stay on it: Kaplan-Meier.

Training and analysis share it. `analysis.stats.survival` has medians, intervals and comparisons.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The lengths of the plateaus of a group of runs.

    Attributes:
      steps: [n], one or more.
      left: [n], whether the plateau was left then; if not, the run ended on it.
    """

    steps: np.ndarray
    left: np.ndarray

    @property
    def budget(self) -> float:
        """How long the group was observed: the largest of its steps."""
        return float(self.steps.max())

    @property
    def censored(self) -> scipy.stats.CensoredData:
        """The same, as scipy takes it."""
        return scipy.stats.CensoredData.right_censored(self.steps, ~self.left)


def kaplan_meier(lengths: Lengths) -> Any:
    """Returns the Kaplan-Meier estimate of a group, the `sf` of `scipy.stats.ecdf`.

    Its `evaluate(steps)` is the fraction of runs that are still on their plateau after these steps.
    """
    return scipy.stats.ecdf(lengths.censored).sf
