"""The runs of a folder as one table."""

import concurrent.futures
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from etils import epath

from gpicl_flax.analysis.data import (
    class_accuracies,
    curves,
    distances,
    evaluations,
    heads,
    hyperparameters,
    losses,
    one_run,
    selections,
)
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.errors import UsageError
from gpicl_flax.records import plateau, schemas
from gpicl_flax.records.criteria import Criteria
from gpicl_flax.records.run_folder import RunFolder, is_run
from gpicl_flax.runtime import gcs
from gpicl_flax.runtime.processes import executor

FROM_RUN_INFO = (
    "model", "parameters", "state_size_paper", "state_size_exact", "num_classes", "sequence_length", "task_batch_size",
    "permute_labels_prob", "steps", "seed",
)  # fmt: skip
READERS = 32  # folders read at once, because gs:// answers slowly but serves many requests at a time
_AT_ONCE = 10  # folders that a process reads before it answers


class Runs(NamedTuple):
    """The tables of the runs of a folder, each of which is read once.

    Attributes:
      table: one row for each run, see `read_all`.
      evaluations: the ends of all curves, `evaluations.table`.
      curves: the last meta-tests at all positions, `curves.table`.
      losses: the training losses over the steps, thinned, `losses.thinned`.
      heads: the comparisons of attention heads over the steps, `heads.strongest`.
      class_accuracies: the accuracies in context and in weights over the steps, `class_accuracies.over_steps`.
      distances: those from references, `distances.table`.
    """

    table: pd.DataFrame
    evaluations: pd.DataFrame
    curves: pd.DataFrame
    losses: pd.DataFrame
    heads: pd.DataFrame
    class_accuracies: pd.DataFrame
    distances: pd.DataFrame


def load(workdir: epath.PathLike) -> pd.DataFrame:
    """Returns the table of the runs in the folder of a sweep, or of one run; see `find` and `read_all`."""
    return read_all(find(workdir)).table


def find(workdir: epath.PathLike) -> list[RunFolder]:
    """Returns the run folders in `workdir`, or `workdir` itself if it is one, in the order of their names.

    A folder with config.gin, run.json or metrics.jsonl belongs to a run. Others, such as a report, do not.

    Raises:
      UsageError: there is none.
    """
    folder = RunFolder(workdir)
    names = folder.names()
    if not names and not folder.path.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if is_run(names):
        return [folder]
    children = [RunFolder(folder.path / name) for name in names if not name.startswith(".")]
    with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
        inside = readers.map(RunFolder.names, children)
    found = [child for child, names in zip(children, inside, strict=True) if is_run(names)]
    if not found:
        raise UsageError(f"there is no run in {folder}: no folder with run.json or metrics.jsonl")
    return found


def read_all(folders: Sequence[RunFolder], processes: int = 1, preload: str = __name__) -> Runs:
    """Reads runs, and keeps only what figures of many runs show. For the arguments see `runtime.processes.executor`.

    Values that a run does not have are missing in its row.

    Columns:
      run_id, folder: those of the run.
      ended: 'DONE' or 'DIVERGED'.
      stopped_early: 'plateau' or 'converged', for a run that ended before its last step because of that.
      gaps: the missing or damaged parts, as text.
      model, parameters: and so on, as in run.json.
      num_tasks: infinite where it is unbounded.
      base_dataset: its name.
      targets_<name>: for a run that predicts numbers, what run.json says of its targets.
      width, num_layers, optimizer, learning_rate, eps, weight_decay, inputs: see `hyperparameters.values`.
      step_flops: those of the matrix products of a training step, if run.json says so.
      selection_<name>: how a sweep chose its settings, see `selections.columns`.
      label_<axis>: the label of the run on that axis of a sweep.
      binding_<name>: the value in config.gin, as text. If only other runs bind it, the default that the run used.
      last_step: the last step of the log.
      lowest_loss_ema, last_loss_ema: in the unit of its targets.
      plateau_steps, plateau_left: the length of the plateau by the training loss, and whether it was left. If not, the
        length is censored at the last step.
      unseen_plateau_steps, unseen_plateau_left: the same by the loss on unseen tasks, censored at the last diagnostics.
      transience_step: if any run has accuracies in context, the step from which that of a run is lost, if it is.
      telemetry_rows: the number of measurements of gradients and updates in the log.
      evaluated_at: the step of the last evaluation. For each of its curves there are `evaluations.NUMBERS`, in columns
        such as unseen_last_low[digits].
    """
    with _readers(folders, processes, preload) as readers:
        found = readers.map(_read, folders, chunksize=_AT_ONCE)
        rows, used, *parts = zip(*found, strict=True)
    _fill_defaults(rows, used)
    return joined(rows, *parts)


def _readers(folders: Sequence[RunFolder], processes: int, preload: str) -> concurrent.futures.Executor:
    # Threads only help where answers are slow: otherwise they take turns, which itself takes time.
    if any(gcs.is_remote(folder.path) for folder in folders):
        return concurrent.futures.ThreadPoolExecutor(READERS)
    return executor(processes, preload) if processes > 1 else concurrent.futures.ThreadPoolExecutor(1)


def rows(found: Sequence[OneRun]) -> list[dict[str, Any]]:
    """Returns the rows of `Runs.table` as dicts, before pandas gives each column a single type."""
    own = [_row(run) for run in found]
    _fill_defaults(own, [run.settings for run in found])
    return own


def joined(
    rows: Sequence[dict[str, Any]],
    evaluated: Sequence[list[dict[str, Any]]],
    drawn: Sequence[list[dict[str, Any]]],
    logged: Sequence[pd.DataFrame],
    compared: Sequence[pd.DataFrame],
    classes: Sequence[pd.DataFrame],
    measured: Sequence[pd.DataFrame],
) -> Runs:
    """Returns the tables of all runs.

    Args:
      rows: the row of each run.
      evaluated: the rows of each run's evaluations.
      drawn: the rows of each run's curves.
      logged: the losses of each run.
      compared: the heads of each run.
      classes: the accuracies in context and in weights of each run.
      measured: the distances of each run from references.
    """
    table = pd.DataFrame(rows).astype({"plateau_left": "boolean", "unseen_plateau_left": "boolean"})
    ends, lines = ([row for own in parts for row in own] for parts in (evaluated, drawn))
    over_steps = (pd.concat(parts, ignore_index=True) for parts in (logged, compared, classes, measured))
    return Runs(table, evaluations.table(ends), curves.table(lines), *over_steps)


def _read(folder: RunFolder) -> tuple[Any, ...]:
    """Returns the row of a run, its settings, and the arguments of `joined` after the rows."""
    run = one_run.read(folder)
    return (
        _row(run),
        run.settings,
        evaluations.ends(run),
        curves.last_test(run),
        losses.thinned(run),
        heads.strongest(run),
        class_accuracies.over_steps(run),
        distances.table(run),
    )


def _fill_defaults(rows: Sequence[dict[str, Any]], used: Sequence[dict[str, str]]) -> None:
    """Adds bindings at their default values to runs that do not bind them, so that they equal runs that do."""
    names = {column.removeprefix("binding_") for row in rows for column in row if column.startswith("binding_")}
    for row, own in zip(rows, used, strict=True):
        for name in sorted(names & own.keys()):
            row.setdefault(f"binding_{name}", own[name])


def criteria(row: pd.Series) -> Criteria | None:
    """Returns how the run of a row of the table is judged; None if that is not known."""
    targets = {name.removeprefix("targets_"): row[name] for name in row.index if name.startswith("targets_")}
    targets = {name: value for name, value in targets.items() if pd.notna(value)}
    classes = int(row["num_classes"]) if pd.notna(row["num_classes"]) else None
    return Criteria.from_run_info({"num_classes": classes, "targets": targets or None})


def of_its_own_dataset(row: pd.Series, number: str) -> float:
    """Returns a number of the last evaluation, such as unseen_gain, on the base dataset that the run was trained on."""
    return row.get(f"{number}[{row['base_dataset']}]", math.nan)


def _row(run: OneRun) -> dict[str, Any]:
    run_info, metrics = run.run_info, run.metrics
    row = {"run_id": run.run_id, "folder": str(run.folder), "ended": run.ended, "stopped_early": run.stopped_early}
    row["gaps"] = "; ".join(run.gaps)
    row |= {name: run_info.get(name) for name in FROM_RUN_INFO}
    row["num_tasks"] = math.nan if "num_tasks" not in run_info else run_info["num_tasks"] or math.inf
    base_dataset = run_info.get("base_dataset")
    row["base_dataset"] = base_dataset.get("name") if isinstance(base_dataset, dict) else None
    row |= {f"targets_{name}": value for name, value in run_info.get("targets", {}).items()}
    row |= hyperparameters.values(run)
    labels = run_info.get("labels")
    row |= selections.columns(run_info)
    if isinstance(run_info.get("step_flops"), int):
        row["step_flops"] = run_info["step_flops"]
    row |= {f"label_{axis}": str(label) for axis, label in (labels if isinstance(labels, dict) else {}).items()}
    row |= {f"binding_{name}": value for name, value in run.bindings.items()}
    ema = metrics["loss_ema"]
    row |= {"last_step": max(metrics.index, default=0), "lowest_loss_ema": ema.min()}
    row["last_loss_ema"] = ema.iloc[-1] if len(ema) else math.nan
    criteria = Criteria.from_run_info(run_info)
    row |= _duration("plateau", ema.index.tolist(), ema.tolist(), plateau.plateau_exit_step, criteria)
    losses = {step: values.get("unseen_loss") for step, values in run.diagnostics.items()}
    losses = {step: loss for step, loss in losses.items() if isinstance(loss, int | float)}
    rule = plateau.unseen_plateau_exit_step
    row |= _duration("unseen_plateau", list(losses), list(losses.values()), rule, criteria)
    for name in ("plateau", "unseen_plateau"):
        if (step := schemas.left_before_gap(run_info, name)) is not None:
            row |= {f"{name}_steps": step, f"{name}_left": True}
    row |= class_accuracies.transience_column(run)
    row["telemetry_rows"] = len(run.telemetry)
    row["evaluated_at"] = run.evaluations[-1]["step"] if run.evaluations else math.nan
    for curve in run.evaluations[-1]["curves"] if run.evaluations else []:
        numbers = evaluations.numbers(curve, criteria)
        row |= {f"{curve['tasks']}_{name}[{curve['base_dataset']}]": value for name, value in numbers.items()}
    return row


def _duration(name: str, steps: list[int], losses: list[float], rule, criteria: Criteria | None) -> dict[str, Any]:
    """Returns the length of a plateau, and whether the run left it before the log ended."""
    known = bool(steps) and criteria is not None
    left = rule(steps, losses, criteria.threshold) if known and criteria else None
    length = (steps[-1] if left is None else left) if known else math.nan
    return {f"{name}_steps": length, f"{name}_left": left is not None if known else None}
