"""Simulated logs of runs with log-normal plateaus, to see what a stop does where the truth is known."""

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.stats

from gpicl_flax.records import plateau

CLASSES = 10
_FROM, _TARGET = 0.02, 0.6  # matching scores where growth begins, and about where plateaus end


@dataclasses.dataclass(frozen=True)
class SimulatedSweep:
    """Runs that differ in their seeds.

    Attributes:
      runs: how many.
      steps: those of each.
      period: steps between two rows; each has diagnostics.
      left: the share of runs whose plateau is shorter than `steps`.
      spread: the standard deviation of the logarithm of the length of a plateau.
      growing: the share of a plateau over which the matching score grows, exponentially, before it ends.
      noise: the standard deviation of a measured score.
      scores: 'growing'; 'unrelated': noise around a constant; 'none': there are no scores.
    """

    runs: int = 30
    steps: int = 2000
    period: int = 100
    left: float = 0.4
    spread: float = 0.6
    growing: float = 0.7
    noise: float = 0.005
    scores: str = "growing"

    def lengths(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the lengths of the plateaus [runs], in steps."""
        middle = math.log(self.steps) - self.spread * scipy.stats.norm.ppf(self.left)
        return np.exp(middle + self.spread * rng.standard_normal(self.runs))

    def rows(self, length: float, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Returns the log of a run whose loss falls below the threshold of its plateau at a step, and stays there."""
        steps = np.arange(self.period, self.steps + 1, self.period)
        cut = plateau.threshold(CLASSES)
        losses = np.where(steps >= length, cut - 0.3, cut + 0.1)
        rows = [{"step": int(step), "loss_ema": float(loss)} for step, loss in zip(steps, losses, strict=True)]
        for row, score in zip(rows, self._scores(length, steps, rng), strict=True):
            measured = {} if self.scores == "none" else {"matching_score": [[0.0, float(score)]]}
            row["diagnostics"] = {"unseen_loss": cut + 0.1, "unseen_accuracy_last": 0.1} | measured
        return rows

    def _scores(self, length: float, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        target = min(_TARGET * math.exp(0.15 * rng.standard_normal()), 0.95)
        share = 1 - np.clip((length - steps) / (self.growing * length), 0, 1)  # of the way from _FROM to the target
        if self.scores == "unrelated":
            share, target = np.zeros(len(steps)), _FROM
        scores = _FROM * (target / _FROM) ** share + self.noise * rng.standard_normal(len(steps))
        return np.clip(scores, 0, 1)
