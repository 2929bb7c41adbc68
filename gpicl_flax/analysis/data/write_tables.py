"""Writes the tables of a study (see `study_tables`) from the folders of its runs."""

import concurrent.futures
import graphlib
import itertools
import math
from collections.abc import Callable
from typing import Any

from etils import epath

from gpicl_flax.analysis.data import curves, evaluations, float32, one_run, runs, study_tables, table_file
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder, write_json

Rows = list[dict[str, Any]]

# Tables that distinguish a number that was not finite from one that was not measured.
_NULLS = (study_tables.DIAGNOSTICS, study_tables.TELEMETRY)


def write(workdir: epath.PathLike, out: epath.PathLike) -> epath.Path:
    """Writes the tables of the runs in `workdir` into the folder `out`, and returns that folder.

    They replace former tables there. They keep what figures show, to the last digit: the accuracies of the last
    meta-test at all positions, the ends of the curves of earlier ones, and the losses, diagnostics and telemetry of the
    log.

    Raises:
      UsageError: there is no run in `workdir`, or `out` is the folder of the runs.
    """
    if study_tables.holds_tables(workdir):
        raise UsageError(f"{workdir} already holds tables, and no run folders to write them from: copy the folder")
    folders, target = runs.find(workdir), RunFolder(out).path
    if target == RunFolder(workdir).path or target in [folder.path for folder in folders]:
        raise UsageError(f"{target} holds the runs themselves: name another folder for their tables")
    with concurrent.futures.ThreadPoolExecutor(runs.READERS) as readers:
        each = [*readers.map(one_run.read, folders)]
    tables = {study_tables.RUNS: runs.rows(each)}
    tables |= {name: [row for run in each for row in rows_of_run(run)] for name, rows_of_run in _ROWS.items()}
    tables = {name: rows for name, rows in tables.items() if rows}
    in_float32 = {name: _float32_columns(rows) for name, rows in tables.items() if name in study_tables.MEASURED}
    target.mkdir(parents=True, exist_ok=True)
    # study.json is deleted first and written last, so that nobody takes incomplete tables for a study.
    for name in (study_tables.STUDY, study_tables.RUNS, *study_tables.COLUMNS):
        (target / name).unlink(missing_ok=True)
    for name, rows in tables.items():
        columns = _columns(name, rows)
        if name not in _NULLS:
            rows = [{column: value for column, value in row.items() if _has_value(column, value)} for row in rows]
        text = {*filter(study_tables.is_text, columns)}
        table_file.write(target / name, columns, rows, text=text, in_float32=in_float32.get(name, ()))
    study = {
        "format": study_tables.FORMAT,
        "single_run": folders[0].path == RunFolder(workdir).path,
        "rows": {name: len(rows) for name, rows in tables.items()},
        "float32": in_float32,
    }
    write_json(target / study_tables.STUDY, study)
    return target


def _columns(name: str, rows: Rows) -> list[str]:
    """Returns the columns of a table, in the order in which its rows come to have them."""
    own = dict.fromkeys(column for row in rows for column in row)
    if name == study_tables.DIAGNOSTICS:
        own = _common_order(rows) or own
    found = dict.fromkeys([*study_tables.COLUMNS.get(name, ()), *own])
    return [column for column in found if column != "folder"]  # readers of the tables do not have the run folders


def _common_order(rows: Rows) -> list[str]:
    """Returns the columns in the order that they have in every row, or nothing if rows contradict each other.

    A report lists the diagnostics of a run in the order of its log, and different models have different diagnostics.
    """
    before: dict[str, set[str]] = {}
    for own in dict.fromkeys(tuple(row) for row in rows):
        for column, following in itertools.pairwise(own):
            before.setdefault(following, set()).add(column)
    try:
        return [*graphlib.TopologicalSorter({column: sorted(first) for column, first in before.items()}).static_order()]
    except graphlib.CycleError:
        return []


def _has_value(column: str, value: Any) -> bool:
    return not (value is None or value != value or (column == "gaps" and not value))


def _curves(run: OneRun) -> Rows:
    return [
        {"run_id": run.run_id, "test_dataset": curve["base_dataset"], "tasks": curve["tasks"], "position": position}
        | {name: values[position] for name, values in own.items()}
        for curve in (run.evaluations[-1]["curves"] if run.evaluations else [])
        for own in [curves.by_position(curve)]
        for position in range(len(next(iter(own.values()))))
    ]


def _losses(run: OneRun) -> Rows:
    columns = (run.metrics.index.tolist(), run.metrics["loss"].tolist(), run.metrics["loss_ema"].tolist())
    names = ("run_id", *study_tables.COLUMNS[study_tables.LOSSES][1:])
    return [dict(zip(names, (run.run_id, *values), strict=True)) for values in zip(*columns, strict=True)]


def _diagnostics(run: OneRun) -> Rows:
    return [{"run_id": run.run_id, "step": step} | values for step, values in run.diagnostics.items()]


def _telemetry(run: OneRun) -> Rows:
    """Returns a row for the whole model at each step that has telemetry, and one for each tensor measured at that step.

    A quantity that never was finite is NaN in every row, so that the tables also record that it was measured.
    """
    numbers = run.telemetry.columns[run.telemetry.notna().any()]
    by_tensor: dict[str, dict[str, list]] = {"": {}}
    for tensor, quantity in run.telemetry.columns.to_list():
        by_tensor.setdefault(tensor, {})[quantity] = run.telemetry[tensor, quantity].tolist()
    rows = []
    for place, step in enumerate(run.telemetry.index.tolist()):
        for tensor, values in by_tensor.items():
            own = {quantity: column[place] for quantity, column in values.items()}
            own = {quantity: x for quantity, x in own.items() if not math.isnan(x) or (tensor, quantity) not in numbers}
            if own or not tensor:
                rows.append({"run_id": run.run_id, "step": step} | ({"tensor": tensor} if tensor else {}) | own)
    return rows


_ROWS: dict[str, Callable[[OneRun], Rows]] = {
    study_tables.EVALUATIONS: evaluations.ends,
    study_tables.CURVES: _curves,
    study_tables.LOSSES: _losses,
    study_tables.DIAGNOSTICS: _diagnostics,
    study_tables.TELEMETRY: _telemetry,
}


def _float32_columns(rows: Rows) -> list[str]:
    """Returns the columns of numbers that hold float32 only."""
    columns = dict.fromkeys(column for row in rows for column in row if column not in study_tables.KEY)
    return [
        name
        for name in columns
        if not study_tables.is_text(name) and all(float32.is_float32(row[name]) for row in rows if name in row)
    ]
