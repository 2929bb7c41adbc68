"""The last meta-test of every run at all positions of a sequence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

BY_POSITION = ("accuracy", "accuracy_low", "accuracy_high")


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows of `last_test` as a table, which has its columns even without rows."""
    return pd.DataFrame(rows, columns=["run_id", "test_dataset", "tasks", *BY_POSITION])


def last_test(run: OneRun) -> list[dict[str, Any]]:
    """Returns a row for each curve of the last meta-test.

    Its columns are run_id, test_dataset, tasks, and accuracy with the ends of its 95% interval, arrays [T].
    """
    return [
        {"run_id": run.run_id, "test_dataset": curve["base_dataset"], "tasks": curve["tasks"]}
        | {name: np.asarray(curve[name], float) for name in BY_POSITION}
        for curve in (run.evaluations[-1]["curves"] if run.evaluations else [])
    ]
