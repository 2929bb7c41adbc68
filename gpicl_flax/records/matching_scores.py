"""The matching score of a run along its diagnoses: that of its best head, and how fast it grows.

On the plateau the score grows exponentially while the loss stands (docs/plateau.md), so growth is that of its
logarithm. `training.probes.attention_stats` defines the score.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FLOOR = 0.01  # smaller scores are noise: they count as this one
WINDOW = 10  # diagnoses that growth is measured over
FEWEST = 4  # diagnoses without which growth and its error are not known
_ERRORS = 2.0  # standard errors that the growth may be above the fitted one


class Growth(NamedTuple):
    """The exponential growth of a score at a step.

    Attributes:
      score: the score there, by the fitted line.
      rate: the growth of its logarithm, per training step.
      highest_rate: the rate plus two standard errors.
    """

    score: float
    rate: float
    highest_rate: float

    def after(self, steps: int, least_rate: float) -> float:
        """Returns the score after more steps, at most 1: at the highest rate, or the `least_rate` if that is higher."""
        return math.exp(min(math.log(self.score) + max(self.highest_rate, least_rate) * steps, 0.0))


def highest(diagnostics: Mapping[str, Any]) -> float | None:
    """Returns the highest finite score of all layers and heads of a diagnosis; None: there is none."""
    scores = [score for heads in diagnostics.get("matching_score", ()) for score in heads if score is not None]
    return max((score for score in scores if math.isfinite(score)), default=None)


def growth(scores: Sequence[Sequence[float]]) -> Growth | None:
    """Returns the growth at the last of some pairs of a step and a score; None: there are too few.

    It is fitted to the logarithms by least squares, over the last WINDOW pairs and over the last few, because a growth
    that has just begun shows only in these; the faster one counts. Scores below FLOOR count as FLOOR.
    """
    if len(scores) < FEWEST:
        return None
    fits = [_fit(scores[-count:]) for count in (FEWEST, WINDOW)]
    fastest = (max(fit[place] for fit in fits) for place in range(3))
    return Growth(*fastest)


def _fit(scores: Sequence[Sequence[float]]) -> Growth:
    steps, logs = [float(step) for step, _ in scores], [math.log(max(score, FLOOR)) for _, score in scores]
    count, step_mean, log_mean = len(steps), math.fsum(steps) / len(steps), math.fsum(logs) / len(logs)
    spread = math.fsum((step - step_mean) ** 2 for step in steps)
    pairs = list(zip(steps, logs, strict=True))
    rate = math.fsum((step - step_mean) * (log - log_mean) for step, log in pairs) / spread
    squares = math.fsum((log - log_mean - rate * (step - step_mean)) ** 2 for step, log in pairs)
    error = math.sqrt(squares / (count - 2) / spread)
    end = max(log_mean + rate * (steps[-1] - step_mean), math.log(FLOOR))
    return Growth(math.exp(end), rate, rate + _ERRORS * error)
