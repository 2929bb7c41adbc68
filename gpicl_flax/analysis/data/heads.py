"""The comparisons that attention heads make over the steps of every run, from its diagnostics."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.records import matching_scores


def strongest(run: OneRun) -> pd.DataFrame:
    """Returns a row for each diagnosis of queries and keys: run_id, step, matching_score, same_class_ratio.

    matching_score is the highest of all heads. same_class_ratio is the attention on tokens of the same class divided by
    that of uniform attention, for the head whose ratio is farthest from 1. It is NaN for models without attention.
    """
    rows = [
        (run.run_id, step, _highest(values["matching_score"]), _ratio(values))
        for step, values in run.diagnostics.items()
        if "matching_score" in values
    ]
    return pd.DataFrame(rows, columns=["run_id", "step", "matching_score", "same_class_ratio"])


def _highest(scores: list[list[float | None]]) -> float:
    score = matching_scores.highest({"matching_score": scores})
    return math.nan if score is None else float(score)


def _ratio(values: dict[str, Any]) -> float:
    if "same_class_attention" not in values:
        return math.nan
    found = np.array(values["same_class_attention"], float).ravel() / float(values["same_class_uniform"] or math.nan)
    found = found[np.isfinite(found) & (found > 0)]
    return float(found[np.abs(np.log(found)).argmax()]) if len(found) else math.nan
