"""How far every run is from the references of its tasks: over the steps, and in its last meta-test."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

COLUMNS = ["run_id", "measured", "step", "reference", "distance"]
DIAGNOSED, TESTED = "diagnostics", "meta-test"


def table(run: OneRun) -> pd.DataFrame:
    """Returns a row for each reference and each diagnosis that has its distance, and one for the last meta-test.

    All are on unseen tasks, and means over the positions that count: squared differences of predictions, or for classes
    Kullback-Leibler divergences in nats. `measured` says by what. Tasks of several base datasets have none of the
    second kind but that of the dataset trained on.
    """
    rows = [
        (run.run_id, DIAGNOSED, step, name, _number(distance))
        for step, values in run.diagnostics.items()
        if isinstance(values.get("distances"), dict)
        for name, distance in values["distances"].items()
    ]
    dataset = (run.run_info.get("base_dataset") or {}).get("name")
    for evaluation in run.evaluations[-1:]:
        for curve in evaluation["curves"]:
            if curve["tasks"] == "unseen" and curve["base_dataset"] == dataset:
                rows += [
                    (run.run_id, TESTED, evaluation["step"], name, float(np.mean(own["distance"])))
                    for name, own in curve.get("references", {}).items()
                    if "distance" in own
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
