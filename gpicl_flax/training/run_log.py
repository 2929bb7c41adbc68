"""The logs of a run while it trains: metrics.jsonl and timing.jsonl."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gpicl_flax.errors import Damaged, Diverged
from gpicl_flax.records import plateau_rule, schemas
from gpicl_flax.records.json_lines import JsonLines, Row
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.records.run_folder import DIVERGED, RunFolder, write_json
from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.families.family import TaskFamily
from gpicl_flax.training import plateau_stop
from gpicl_flax.training.early_stop import PLATEAU, EarlyStop, StopState
from gpicl_flax.training.log_record import LogRecord
from gpicl_flax.training.log_writer import LogWriter

logger = logging.getLogger(__name__)

_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")


class RunLog:
    """Writes metrics.jsonl and timing.jsonl.

    In addition to metrics, a row describes the status of the run:

    - `plateau`: whether its average loss is still at the height of the plateau.
    - `plateau_left_at`: the first step at which the loss was below it, or null.
    - `phase`: the phase as far as diagnostics determine it, or null.
    - `stopped_early`: why this row is the last, only in the last row of a run that stops before its last step.
    - `leave_probability`: that of its `PlateauRule`, beside `stopped_early` in a run that the rule ended.

    Each checkpoint carries a record of the log: how many rows it has, their digest, and the decisions made by them. A
    run whose log has lost rows since then, or has other ones, is not resumed without a word: its plateau, its phase and
    its early stop would be decided by the remaining rows.

    Where the folder holds a `PlateauRule`, the run may also end by it.

    Args:
      folder: the run folder.
      tasks: its tasks.
      start_step: the step that the run continues from.
      on_row: each is called with every new row.
      writer: writes the rows.
      steps, steps_per_dispatch, early_stop: see `Training`.
      saved: the record of the log in the checkpoint of that step; None: there is none.
      accept_lost_log: go on without the lost rows, by the record in the checkpoint. The gap is named in run.json.

    Raises:
      Damaged: a log is damaged, or is not the one that the checkpoint records; or the rule is damaged.
    """

    def __init__(
        self,
        folder: RunFolder,
        tasks: TaskFamily,
        start_step: int,
        on_row: Sequence[Callable[[Row], None]],
        writer: LogWriter,
        *,
        steps: int,
        steps_per_dispatch: int,
        early_stop: EarlyStop | None,
        saved: dict[str, Any] | None = None,
        accept_lost_log: bool = False,
    ):
        judged = tasks.targets.as_run_info()
        tracker = PlateauTracker(judged.get("num_classes"), tasks.num_tasks, targets=judged.get("targets"))
        self._record = LogRecord(tracker, StopState(steps))
        self._folder = folder
        self._threshold = tracker.criteria.threshold
        self._on_row = on_row
        self._steps, self._steps_per_dispatch, self._early_stop = steps, steps_per_dispatch, early_stop
        self._rule: PlateauRule | None = None
        self._metrics = JsonLines(folder.metrics, schemas.METRICS)
        self._timing = JsonLines(folder.timing, schemas.TIMING)
        self._writer = writer
        # All processes have to end together, and only the first one may read what it rewrites.
        error = self._resume(start_step, saved, accept_lost_log) if self._writes else ""
        rule = dataclasses.asdict(self._rule) if self._rule else None
        known = json.loads(distributed.broadcast(json.dumps([error, self.record(), rule]), "how the run stands"))
        if known[0]:
            raise Damaged(known[0])
        self._record = LogRecord.from_json(known[1])
        self._rule = PlateauRule.from_json(known[2]) if known[2] else None
        if self._writes:
            writer.add(self._metrics, self._timing)

    def _resume(self, step: int, saved: dict[str, Any] | None, accept_lost_log: bool) -> str:
        """Reads the logs up to a step and removes later rows. Returns why the run cannot continue, or nothing."""
        try:
            self._rule = plateau_rule.read(self._folder)
            # With a record, what matters is whether the recorded rows are there, whatever else the file holds.
            rows = self._metrics.rows_until(step, skip_damaged=accept_lost_log or saved is not None)
            times = self._timing.rows_until(step, skip_damaged=accept_lost_log)
        except Damaged as error:
            return str(error)
        last_step = self.stop_state.last_step
        for row in rows:
            self._follow(row["step"], row["loss_ema"], row.get("diagnostics"))
            self._record.count(row)
        if saved is not None:
            found, recorded = self._record, LogRecord.from_json(saved)
            if (found.rows, found.digest) != (recorded.rows, recorded.digest):
                if not accept_lost_log:
                    return self._why_lost(step, recorded.rows)
                recorded = recorded.with_rows_of(found, step)
            if recorded.gaps:  # the rows alone would decide otherwise
                if recorded.stop_state.why is None:
                    recorded.stop_state.last_step = last_step
                self._record = recorded
        elif step > 0:
            logger.warning(
                "the checkpoint of step %d in %s is from an earlier version, which did not record the log: whether "
                "rows are missing cannot be seen; the next checkpoint records it",
                step,
                self._folder,
            )
        self._metrics.replace(rows)
        self._timing.replace(times)
        if self._record.gaps:
            write_json(self._folder.run_info, self._folder.read_run_info() | {"log_gaps": self._record.gaps})
        return ""

    def _why_lost(self, step: int, recorded: int) -> str:
        try:
            self._metrics.rows_until(step)
        except Damaged as error:
            return str(error)
        others = " others" if recorded == self._record.rows else ""
        return (
            f"{self._folder.metrics} has {self._record.rows} row(s) up to step {step:,}, and the checkpoint of that "
            f"step records {recorded}{others}: restore it from a copy, or go on without them with --accept_lost_log"
        )

    @property
    def stop_state(self) -> StopState:
        """When the run ends."""
        return self._record.stop_state

    def record(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of the log, plain JSON."""
        return self._record.as_json()

    @property
    def _writes(self) -> bool:
        return distributed.is_primary()

    def add(self, step: int, metrics: dict[str, np.ndarray], measured: dict[str, Any]) -> Diverged | None:
        """Takes the metrics [steps] of the steps up to `step`, and the measurements at it by their names.

        The names are 'diagnostics', for example. If the metrics are not finite, marks the folder as diverged and
        returns why.
        """
        finite = np.logical_and.reduce([np.isfinite(metrics[name]) for name in _MUST_BE_FINITE])
        if not finite.all():
            index = int(np.argmin(finite))
            return self._mark_diverged(step - len(finite) + 1 + index, {k: v[index] for k, v in metrics.items()})
        row: Row = {"step": step}
        for name, values in sorted(metrics.items()):
            # An average over time is read at its end. All other metrics are means over the dispatch.
            row[name] = float(values[-1] if name == "loss_ema" else values.mean(dtype=np.float64))
        row["plateau"] = row["loss_ema"] >= self._threshold
        numbers = jax.tree.map(lambda x: np.asarray(x, np.float64), measured)
        measured = jax.tree.map(_as_json, numbers)
        if self.stop_state.why and step == self.stop_state.last_step:
            row["stopped_early"] = self.stop_state.why
            if self.stop_state.leave_probability is not None:
                row["leave_probability"] = self.stop_state.leave_probability
        self._follow(step, row["loss_ema"], measured.get("diagnostics"))
        row |= {"plateau_left_at": self._record.tracker.exit_step, "phase": self._record.tracker.phase} | measured
        self._record.count(row)
        if self._writes:
            self._metrics.append(row)
            self._timing.append({"step": step, "time": time.time()})
        for callback in self._on_row:
            callback(row)
        return None

    def _follow(self, step: int, loss_ema: float, diagnostics: dict[str, Any] | None) -> None:
        """Updates the record by a row."""
        self._record.tracker.follow(step, loss_ema, diagnostics)
        state, tracker, diagnosed = self.stop_state, self._record.tracker, diagnostics is not None
        last_step = step + self._steps_per_dispatch  # the device is already busy with these steps
        if state.why:
            return
        why = self._early_stop and self._early_stop.reason(state, step, tracker, loss_ema, diagnosed)
        if self._rule and not why:
            state.scores = plateau_stop.with_score(state.scores or [], step, diagnostics)
            if diagnosed and last_step < state.last_step:
                state.leave_probability = plateau_stop.leave_probability(
                    self._rule, state.scores, step, self._steps, tracker
                )
            why = PLATEAU if state.leave_probability is not None else None
        if why and last_step < state.last_step:
            state.why, state.last_step = why, last_step

    def _mark_diverged(self, step: int, metrics: dict[str, np.floating]) -> Diverged:
        self._writer.flush()
        values = ", ".join(f"{name} {metrics[name]}" for name in _MUST_BE_FINITE)
        message = f"diverged at step {step:,}: {values}; try a lower learning rate or clipping"
        if self._writes:
            self._folder.mark(DIVERGED, message + "\n")
        return Diverged(message)


def _as_json(x: np.ndarray) -> Any:
    """Returns numbers as nested lists, with None for what is not finite, because JSON cannot represent it."""
    finite = x.astype(object)
    finite[~np.isfinite(x)] = None
    return finite.tolist()
