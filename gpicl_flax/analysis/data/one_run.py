"""Reads everything that a figure can show of one run from its folder, even if it is unfinished, diverged or damaged."""

import dataclasses
import itertools
from typing import Any

import pandas as pd
from etils import epath

from gpicl_flax import config
from gpicl_flax.errors import Damaged, UsageError
from gpicl_flax.records import schemas
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.records.snapshot import Snapshot

_WORDS = ("phase", "stopped_early")  # the values of a row that are not numbers


@dataclasses.dataclass(frozen=True)
class OneRun:
    """A run, to the extent that it can be read from its folder or from the tables of its study.

    Attributes:
      run_id: the name of its folder.
      folder: its folder. For a run from tables: where it would be in the folder of the tables.
      ended: 'DONE', 'DIVERGED', or None for a run that has not ended.
      stopped_early: why it ended before its last step, 'plateau' or 'converged', or None.
      run_info: run.json; empty where it cannot be read.
      bindings: those of config.gin, with their values as text; empty where it cannot be read.
      settings: the bindings together with every default that was used, as far as operative_config.gin can be read.
      metrics: the numbers of metrics.jsonl, one row for each logged step, in their order. The index holds the steps.
      diagnostics: the diagnostics by step, in the order of the steps.
      telemetry: the measurements of gradients and updates, one row for each step that has them. The columns have two
        levels: 'tensor', its path or '' for the whole model, and 'quantity', such as grad_norm.
      evaluations: the run's own meta-tests, in the order of their steps.
      gaps: a phrase for each thing that is missing or damaged.
    """

    run_id: str
    folder: RunFolder
    ended: str | None
    stopped_early: str | None
    run_info: dict[str, Any]
    bindings: dict[str, str]
    settings: dict[str, str]
    metrics: pd.DataFrame
    diagnostics: dict[int, dict[str, Any]]
    telemetry: pd.DataFrame
    evaluations: list[dict[str, Any]]
    gaps: list[str]


def read(folder: RunFolder) -> OneRun:
    """Reads a run folder. Everything that cannot be read becomes a gap."""
    gaps: list[str] = []
    snapshot = Snapshot(folder)
    run_info = _read_run_info(snapshot, gaps)
    bindings = _read_bindings(snapshot, folder.config, gaps)
    settings = bindings | _read_bindings(snapshot, folder.operative_config, gaps)
    rows = _read_rows(snapshot, gaps)
    if not rows and run_info.get("steps") != 0:
        gaps.append("no metrics")
    diagnostics = {step: row.pop("diagnostics") for step, row in rows.items() if "diagnostics" in row}
    telemetry = {step: row.pop("telemetry") for step, row in rows.items() if "telemetry" in row}
    stopped_early = rows[max(rows)].get("stopped_early") if rows else None
    for row, name in itertools.product(rows.values(), _WORDS):
        row.pop(name, None)
    evaluations = _read_evaluations(snapshot, gaps)
    if not evaluations:
        gaps.append("no evaluation")
    return OneRun(
        folder.path.name,
        folder,
        snapshot.ended,
        stopped_early,
        run_info,
        bindings,
        settings,
        _metrics(rows),
        {step: values for step, values in diagnostics.items() if isinstance(values, dict)},
        _telemetry({step: values for step, values in telemetry.items() if isinstance(values, dict)}),
        evaluations,
        gaps,
    )


def _read_run_info(snapshot: Snapshot, gaps: list[str]) -> dict[str, Any]:
    try:
        run_info = snapshot.read_run_info()
    except Damaged:
        gaps.append(f"{snapshot.folder.run_info.name} is missing or damaged")
        return {}
    for gap in run_info.get("log_gaps", []):
        gaps.append(schemas.gap_in_words(gap))
    return run_info


def _read_bindings(snapshot: Snapshot, path: epath.Path, gaps: list[str]) -> dict[str, str]:
    if not snapshot.has(path):
        return {}
    try:
        text = snapshot.read_text(path, "")
        return {name: str(value) for name, value in config.parse_bindings(text).bindings.items()}
    except UsageError:
        gaps.append(f"{path.name} is damaged")
        return {}


def _read_rows(snapshot: Snapshot, gaps: list[str]) -> dict[int, dict[str, Any]]:
    """Returns the rows of a log by step.

    A row whose step is not later than that of the previous row comes from a run that was resumed there. The rows that
    an earlier process of the run logged from that step on do not count. The last line may be half written.
    """
    log, damaged = snapshot.folder.metrics, 0

    def count_damaged() -> None:
        nonlocal damaged
        damaged += 1

    try:
        found = snapshot.read_rows(log, schemas.ANY_ROW, skip_damaged=True, on_damaged=count_damaged)
    except Damaged:
        gaps.append(f"{log.name} cannot be read")
        return {}
    rows: dict[int, dict[str, Any]] = {}
    for row in found:
        step = row.pop("step")
        while rows and next(reversed(rows)) >= step:
            rows.popitem()
        rows[step] = row
    if damaged:
        gaps.append(f"{damaged} damaged line{'s' if damaged > 1 else ''} in {log.name}")
    return rows


def _metrics(rows: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """Returns `OneRun.metrics`, given the values by step. A value is missing if it is not a number."""
    # A table is made much faster of columns than of rows.
    columns = {name: [row.get(name) for row in rows.values()] for name in _columns(rows)}
    index = pd.Index(list(rows), name="step", dtype=None if rows else int)
    table = pd.DataFrame(columns, index, dtype=None if rows else float)
    for name, kind in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind):
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def _columns(rows: dict[int, dict[str, Any]]) -> list[str]:
    """Returns the names of all numbers of the rows, with the two losses even where no row has them."""
    found = dict.fromkeys(["loss", "loss_ema"])
    for row in rows.values():
        if not row.keys() <= found.keys():
            found |= dict.fromkeys(row)
    return list(found)


def _telemetry(rows: dict[int, dict[str, Any]]) -> pd.DataFrame:
    flat = {}
    for step, values in rows.items():
        tensors = values.get("tensors")
        parts = {"": values} | (tensors if isinstance(tensors, dict) else {})
        flat[step] = {
            (tensor, quantity): value
            for tensor, own in parts.items()
            if isinstance(own, dict)
            for quantity, value in own.items()
            if quantity != "tensors"
        }
    return telemetry_table(flat)


def telemetry_table(flat: dict[int, dict[tuple[str, str], Any]]) -> pd.DataFrame:
    """Returns `OneRun.telemetry`, given the values by step, tensor and quantity.

    A value is missing if it is not a number, or was not finite.
    """
    columns = list(dict.fromkeys(column for row in flat.values() for column in row))
    index = pd.Index(list(flat), name="step", dtype=int)
    levels = pd.MultiIndex.from_arrays([*zip(*columns, strict=True)] or [[], []], names=["tensor", "quantity"])
    table = pd.DataFrame(
        [[row.get(column) for column in columns] for row in flat.values()], index=index, columns=levels
    )
    return table.apply(pd.to_numeric, errors="coerce")


def _read_evaluations(snapshot: Snapshot, gaps: list[str]) -> list[dict[str, Any]]:
    evaluations = []
    for file in snapshot.evaluation_files():
        try:
            evaluations.append(snapshot.read_evaluation(file))
        except Damaged:
            gaps.append(f"{file.name} is damaged")
    return evaluations
