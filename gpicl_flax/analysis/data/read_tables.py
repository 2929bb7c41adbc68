"""Reads the tables of a study (see `study_tables`) as if from the folders of its runs.

The tables are data: no part of them is executed.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import pandas as pd
from etils import epath

from gpicl_flax.analysis.data import (
    class_accuracies,
    curves,
    distances,
    evaluations,
    heads,
    losses,
    one_run,
    runs,
    study_tables,
    table_file,
)
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.runs import Runs
from gpicl_flax.analysis.data.table_file import REMEDY, Row
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder, read_json
from gpicl_flax.records.schemas import Schema

# Columns of runs.csv that are None where a run has no value. Other numbers are NaN, and labels and bindings are absent.
_NONE = (
    "ended", "stopped_early", "base_dataset", "optimizer", "inputs", "plateau_left", "unseen_plateau_left",
    *runs.FROM_RUN_INFO,
)  # fmt: skip
_NUMBERS = (
    "last_step",
    "lowest_loss_ema",
    "last_loss_ema",
    "plateau_steps",
    "unseen_plateau_steps",
    "telemetry_rows",
    "evaluated_at",
)


class StudyTables(NamedTuple):
    """The contents of the tables of a study.

    Attributes:
      runs: the tables of all runs.
      each: everything that is kept of each run, in the order of `runs.table`.
      single: whether this was the folder of one run, rather than that of a sweep.
    """

    runs: Runs
    each: list[OneRun]
    single: bool


def read(folder: epath.PathLike) -> StudyTables:
    """Reads tables that `write_tables.write` wrote.

    Raises:
      UsageError: the tables are damaged, or come from another version or another program.
    """
    path = RunFolder(folder).path
    study = _read_study(path / study_tables.STUDY)
    rows = [_run_row(row, path, study["single_run"]) for row in _read_table(path, study_tables.RUNS, study)]
    if not rows:
        raise UsageError(f"{path / study_tables.RUNS} has no runs; {REMEDY}")
    known = {row["run_id"] for row in rows}
    if len(known) < len(rows):
        raise UsageError(f"{path / study_tables.RUNS} has two runs of one run_id; {REMEDY}")
    parts = {name: _by_run(_read_table(path, name, study), known) for name in study_tables.COLUMNS}
    ends = {run_id: [*map(_end, own)] for run_id, own in parts[study_tables.EVALUATIONS].items()}
    each = [_one_run(row, {name: part.get(row["run_id"], []) for name, part in parts.items()}) for row in rows]
    found = runs.joined(
        rows,
        [ends.get(run.run_id, []) for run in each],
        [curves.last_test(run) for run in each],
        [losses.thinned(run) for run in each],
        [heads.strongest(run) for run in each],
        [class_accuracies.over_steps(run) for run in each],
        [distances.table(run) for run in each],
    )
    return StudyTables(found, each, study["single_run"])


def _read_study(path: epath.Path) -> dict[str, Any]:
    try:
        study = read_json(path, Schema(dict[str, Any], REMEDY))
        number, tables = study["format"], (study["rows"], study["float32"])
        whole = isinstance(study["single_run"], bool) and all(isinstance(table, dict) for table in tables)
    except (UsageError, TypeError, KeyError, RecursionError):
        raise UsageError(f"{path} is damaged, or was not written by gpicl; {REMEDY}") from None
    if number != study_tables.FORMAT:
        raise UsageError(
            f"{path} is of format {str(number)[:20]}, and this version reads {study_tables.FORMAT}: "
            "read it with the version that wrote it"
        )
    if not whole:
        raise UsageError(f"{path} is damaged; {REMEDY}")
    return study


def _read_table(folder: epath.Path, name: str, study: dict[str, Any]) -> list[Row]:
    """Returns the rows of a table, with the numbers of float32 columns as they were measured."""
    count = study["rows"].get(name, 0)
    if not count:
        return []
    columns = study_tables.COLUMNS.get(name, ["run_id", "gaps", *_NONE, "num_tasks", *_NUMBERS])
    rows = table_file.read(folder / name, columns, in_float32=study["float32"].get(name, ()))
    if len(rows) != count:
        raise UsageError(f"{folder / name} has {len(rows)} rows, and {study_tables.STUDY} says {count}; {REMEDY}")
    return rows


def _run_row(row: Row, folder: epath.Path, single: bool) -> dict[str, Any]:
    """Returns a row in the form of `runs.rows`."""
    run_id = row.text("run_id")
    if (
        not run_id or run_id in (".", "..") or "/" in run_id or "\0" in run_id
    ):  # files of a report have it in their names
        row.refuse(f"{run_id[:40]!r} is no run_id")
    found: dict[str, Any] = {"run_id": run_id, "folder": str(folder if single else folder / run_id)}
    for column in row.cells:
        if column in found:
            continue
        if column in row:
            found[column] = row.text(column) if study_tables.is_text(column) else _number(row, column)
        elif column == "gaps":
            found[column] = ""
        elif not study_tables.is_text(column) or column in _NONE:
            found[column] = None if column in _NONE else math.nan
    return found


def _number(row: Row, column: str) -> Any:
    if column in runs.FROM_RUN_INFO:
        return row.json(column)  # run.json may hold anything
    return row.json(column, *((bool,) if column.endswith("plateau_left") else (int, float)))


def _by_run(rows: list[Row], known: set[str]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        run_id = row.text("run_id")
        if run_id not in known:
            row.refuse(f"{study_tables.RUNS} has no run {run_id[:40]!r}")
        found[run_id].append(row)
    return found


def _end(row: Row) -> dict[str, Any]:
    """Returns a row of `evaluations.ends`."""
    found = {"run_id": row.text("run_id"), "step": row.json("step", int)}
    found |= {name: row.text(name) for name in ("base_dataset", "tasks")}
    return found | {name: _number(row, name) if name in row else math.nan for name in evaluations.NUMBERS}


def _one_run(row: dict[str, Any], parts: dict[str, list[Row]]) -> OneRun:
    """Returns the parts of a run that figures show.

    Args:
      row: its row of runs.csv.
      parts: its rows of the tables of `study_tables.COLUMNS`.
    """
    bindings = _of_prefix(row, "binding_")
    at, tests = row["evaluated_at"], []
    if not math.isnan(at):
        tests.append({"step": int(at), "curves": _curves(parts[study_tables.CURVES])})
    telemetry = defaultdict(dict)
    for cells in parts[study_tables.TELEMETRY]:
        tensor = cells.text("tensor") if "tensor" in cells else ""
        own = telemetry[cells.json("step", int)]
        for name in cells.cells:
            if name in cells and name not in study_tables.COLUMNS[study_tables.TELEMETRY]:
                own[tensor, name] = cells.json(name)
    return OneRun(
        row["run_id"],
        RunFolder(row["folder"]),
        row["ended"],
        row["stopped_early"],
        _run_info(row),
        bindings,
        bindings,
        _metrics(parts[study_tables.LOSSES]),
        {cells.json("step", int): _diagnosed(cells) for cells in parts[study_tables.DIAGNOSTICS]},
        one_run.telemetry_table(telemetry),
        tests,
        row["gaps"].split("; ") if row["gaps"] else [],
    )


def _of_prefix(row: dict[str, Any], prefix: str) -> dict[str, str]:
    return {column.removeprefix(prefix): value for column, value in row.items() if column.startswith(prefix)}


def _run_info(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of run.json that runs.csv has."""
    found = {name: row[name] for name in runs.FROM_RUN_INFO if row[name] is not None}
    if not math.isnan(row["num_tasks"]):
        found["num_tasks"] = None if math.isinf(row["num_tasks"]) else row["num_tasks"]
    if row["base_dataset"] is not None:
        found["base_dataset"] = {"name": row["base_dataset"]}
    targets = {name: value for name, value in _of_prefix(row, "targets_").items() if value == value}
    if targets:
        found["targets"] = targets
    labels = _of_prefix(row, "label_")
    return found | {"labels": labels} if found else found


def _metrics(rows: list[Row]) -> pd.DataFrame:
    losses_by_name = {
        name: [_number(row, name) if name in row else math.nan for row in rows] for name in ("loss", "loss_ema")
    }
    steps = pd.Index([row.json("step", int) for row in rows], name="step", dtype=int)
    return pd.DataFrame(losses_by_name, index=steps)


def _diagnosed(row: Row) -> dict[str, Any]:
    return {name: row.json(name) for name in row.cells if name in row and name not in study_tables.KEY}


def _curves(rows: list[Row]) -> list[dict[str, Any]]:
    """Returns the curves of a meta-test. Each begins at position 0."""
    found = []
    for row in rows:
        position, names = (
            row.json("position", int),
            {"base_dataset": row.text("test_dataset"), "tasks": row.text("tasks")},
        )
        own = [name for name in (*curves.BY_POSITION, *curves.ERRORS) if name in row] or [*curves.BY_POSITION]
        beside = [name for name in row.cells if name.startswith((curves.POSITIONS, curves.REFERENCE)) and name in row]
        kept = own + beside
        if position == 0:
            found.append(names | {name: [] for name in kept})
        if (
            not found
            or not found[-1].keys() >= {*kept}
            or position != len(found[-1][kept[0]])
            or names != {name: found[-1][name] for name in names}
        ):
            row.refuse(f"position {position} does not follow on the row before")
        for name in kept:
            found[-1][name].append(row.json(name, int) if name == curves.POSITIONS else _number(row, name))
    return [curves.from_columns(curve) for curve in found]
