"""The last meta-test of every run at all positions of a sequence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

BY_POSITION = ("accuracy", "accuracy_low", "accuracy_high")
ERRORS = tuple(f"{name}{end}" for name in ("loss", "squared_error") for end in ("", "_low", "_high"))


def by_position(curve: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns what is kept of a curve: its accuracies, or, where its targets are numbers, its losses and errors."""
    names = BY_POSITION if "accuracy" in curve else [name for name in ERRORS if name in curve]
    return {name: curve[name] for name in names}


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows of `last_test` as a table, which has its columns even without rows."""
    return pd.DataFrame(rows, columns=["run_id", "test_dataset", "tasks", *BY_POSITION])


def last_test(run: OneRun) -> list[dict[str, Any]]:
    """Returns a row for each curve of the last meta-test that has accuracies.

    Its columns are run_id, test_dataset, tasks, and accuracy with the ends of its 95% interval, arrays [T].
    """
    return [
        {"run_id": run.run_id, "test_dataset": curve["base_dataset"], "tasks": curve["tasks"]}
        | {name: np.asarray(curve[name], float) for name in BY_POSITION}
        for curve in (run.evaluations[-1]["curves"] if run.evaluations else [])
        if "accuracy" in curve
    ]
