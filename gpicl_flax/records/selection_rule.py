"""The rule by which a setting is chosen from the scores of runs. Sweeps and reports share it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpicl_flax.errors import Damaged

ACCURACY, LOSS = METRICS = ("accuracy", "loss")
SELECT, REPORT, BISECT = "select", "report", "bisect"  # stages of sweeps
RECORD = {"stage", "configuration", "values", "metric"}  # the keys of `Run.selection`, see `schemas.SelectionInfo`


def score(evaluation: Mapping[str, Any], base_dataset: str, metric: str) -> float:
    """Returns how well a run does on unseen tasks; higher is better.

    Args:
      evaluation: a meta-test of the run.
      base_dataset: the name of the data that it was trained on, whose curve counts.
      metric: 'accuracy': that at the last position; 'loss': minus the mean over the positions.

    Raises:
      Damaged: the meta-test has no such curve.
    """
    own = [
        curve
        for curve in evaluation["curves"]
        if (curve["tasks"], curve["base_dataset"]) == ("unseen", base_dataset) and metric in curve
    ]
    if not own:
        raise Damaged(f"a meta-test has no {metric} on unseen tasks of {base_dataset}")
    values = own[0][metric]
    value = values[-1] if metric == ACCURACY else -math.fsum(values) / len(values)
    return value if math.isfinite(value) else -math.inf


def best(scores: Sequence[Sequence[float]]) -> int | None:
    """Returns the index of the best candidate, the first of equal ones; None if none can be chosen.

    Args:
      scores: for each candidate those of its runs, one for each seed. A run that diverged has minus infinity, and so
        has the mean of its candidate, which is then not chosen.
    """
    means = [math.fsum(own) / len(own) if all(map(math.isfinite, own)) else -math.inf for own in scores]
    highest = max(means)
    return means.index(highest) if math.isfinite(highest) else None
