"""The ends of the meta-test's learning curves, for every run, step and base dataset."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.records.criteria import Criteria, curve_gain

# The numbers that summarise a curve: the accuracy at its last position, the gain since the first position, and their
# intervals; and the mean of its loss over positions in nats, which is the loss that training minimises.
NUMBERS = ("last", "last_low", "last_high", "gain", "gain_low", "gain_high", "loss")


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows of `ends` as a table, which has its columns even without rows."""
    return pd.DataFrame(rows, columns=["run_id", "step", "base_dataset", "tasks", *NUMBERS])


def ends(run: OneRun) -> list[dict[str, Any]]:
    """Returns a row for each step and curve: run_id, step, base_dataset, tasks ('seen' or 'unseen') and `NUMBERS`."""
    return [
        {
            "run_id": run.run_id,
            "step": evaluation["step"],
            "base_dataset": curve["base_dataset"],
            "tasks": curve["tasks"],
        }
        | numbers(curve, Criteria.from_run_info(run.run_info))
        for evaluation in run.evaluations
        for curve in evaluation["curves"]
    ]


def numbers(curve: dict[str, Any], criteria: Criteria | None = None) -> dict[str, float]:
    """Returns the `NUMBERS` of one curve.

    A curve of numbers has only a gain (see `Criteria.gain`) and a loss.

    The 95% interval of the gain is Newcombe's for a difference of proportions. It combines the Wilson intervals of the
    two ends and assumes that they are independent. They come from the same sequences, so the interval is rather too
    wide.
    """
    loss = statistics.fmean(curve["loss"]) if curve.get("loss") else math.nan
    if "accuracy" not in curve:
        gain = curve_gain(curve, criteria)
        return dict.fromkeys(NUMBERS, math.nan) | {"gain": math.nan if gain is None else gain, "loss": loss}
    (first, first_low, first_high), (last, last_low, last_high) = (
        tuple(curve[key][position] for key in ("accuracy", "accuracy_low", "accuracy_high")) for position in (0, -1)
    )
    gain = last - first
    return {
        "last": last,
        "last_low": last_low,
        "last_high": last_high,
        "gain": gain,
        "gain_low": gain - ((last - last_low) ** 2 + (first_high - first) ** 2) ** 0.5,
        "gain_high": gain + ((last_high - last) ** 2 + (first - first_low) ** 2) ** 0.5,
        "loss": loss,
    }
