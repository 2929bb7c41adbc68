"""The accuracies in context and in weights over the steps of every run, from its diagnostics."""

import math
from typing import Any

import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.records.criteria import Criteria
from gpicl_flax.records.transience import Transience, transience

ACCURACIES = ("in_context_accuracy", "in_weights_accuracy")


def over_steps(run: OneRun) -> pd.DataFrame:
    """Returns a row for each diagnosis that has both accuracies: run_id, step, and ACCURACIES."""
    rows = [
        (run.run_id, step, *(_number(values[name]) for name in ACCURACIES))
        for step, values in run.diagnostics.items()
        if all(name in values for name in ACCURACIES)
    ]
    return pd.DataFrame(rows, columns=["run_id", "step", *ACCURACIES])


def lost_in_context(run: OneRun) -> Transience | None:
    """Returns when the run lost its learning in context, or None, see `records.transience`."""
    table, criteria = over_steps(run), Criteria.from_run_info(run.run_info)
    if table.empty or criteria is None:
        return None
    return transience(table["step"].tolist(), table[ACCURACIES[0]].tolist(), criteria.chance_score)


def transience_column(run: OneRun) -> dict[str, Any]:
    """Returns the entry `transience_step` of the row of a run, NaN if it lost nothing; empty without the accuracies."""
    if over_steps(run).empty:
        return {}
    found = lost_in_context(run)
    return {"transience_step": math.nan if found is None else found.step}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
