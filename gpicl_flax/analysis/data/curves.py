"""The last meta-test of every run at all positions of a sequence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

BY_POSITION = ("accuracy", "accuracy_low", "accuracy_high")
ERROR = ("error", "error_low", "error_high")  # the squared error, whether it is the loss or not
ERRORS = tuple(f"{name}{end}" for name in ("loss", "squared_error") for end in ("", "_low", "_high"))
_MEANS = (BY_POSITION, ERRORS[3:], ERRORS[:3])  # the first of these that a curve has is its score
_NAMES = {BY_POSITION: BY_POSITION, ERRORS[3:]: ERROR, ERRORS[:3]: ERROR}


POSITIONS, REFERENCE = "counted_position", "reference/"


def by_position(curve: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns what is kept of a curve, lists over its positions, as columns of a table.

    They are its accuracies, or, where its targets are numbers, its losses and errors; the positions, where not all of
    the sequence count; and the same of each reference at these positions, with its distance. References that were
    measured at a few positions alone, on the host, are left out.
    """
    names = BY_POSITION if "accuracy" in curve else [name for name in ERRORS if name in curve]
    columns = {name: curve[name] for name in names}
    if "positions" in curve:
        columns[POSITIONS] = curve["positions"]
    for name, own in curve.get("references", {}).items():
        if own.get("positions") == curve.get("positions"):
            columns |= {f"{REFERENCE}{name}/{quantity}": own[quantity] for quantity in own if quantity != "positions"}
    return columns


def from_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the curve that `by_position` made these columns from; other entries stay as they are."""
    curve, references = {}, {}
    for column, values in columns.items():
        if column == POSITIONS:
            curve["positions"] = values
        elif column.startswith(REFERENCE):
            name, _, quantity = column.removeprefix(REFERENCE).rpartition("/")
            references.setdefault(name, {})[quantity] = values
        else:
            curve[column] = values
    return curve | ({"references": references} if references else {})


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows of `last_test` as a table, which has its columns even without rows."""
    own = ["run_id", "test_dataset", "tasks", "positions", *BY_POSITION, *ERROR, "references"]
    return pd.DataFrame(rows, columns=own)


def last_test(run: OneRun) -> list[dict[str, Any]]:
    """Returns a row for each curve of the last meta-test.

    Its columns are run_id, test_dataset, tasks, positions, and either accuracy, or for numbers error, with the ends of
    its 95% interval: arrays over the positions. `references` has the positions and means of each reference, by name.
    """
    rows = []
    for curve in run.evaluations[-1]["curves"] if run.evaluations else []:
        names = next(names for names in _MEANS if names[0] in curve)
        own = {name: np.asarray(curve[key], float) for name, key in zip(_NAMES[names], names, strict=True)}
        positions = np.asarray(curve.get("positions") or range(len(curve[names[0]])))
        row = {"run_id": run.run_id, "test_dataset": curve["base_dataset"], "tasks": curve["tasks"]}
        rows.append(row | {"positions": positions, "references": _references(curve, names[0], positions)} | own)
    return rows


def _references(
    curve: Mapping[str, Any], score: str, positions: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the positions and the scores of each reference that has scores, by its name."""
    return {
        name: (np.asarray(own.get("positions", positions)), np.asarray(own[score], float))
        for name, own in curve.get("references", {}).items()
        if score in own
    }
