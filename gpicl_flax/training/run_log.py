"""The logs of a run while it trains: metrics.jsonl and timing.jsonl."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gpicl_flax.errors import Diverged
from gpicl_flax.records import plateau
from gpicl_flax.records.json_lines import JsonLines, Row
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.training.early_stop import EarlyStop, StopState

_WRITE_SECONDS = 5.0
_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")


class RunLog:
    """Writes metrics.jsonl and timing.jsonl.

    In addition to metrics, a row describes the status of the run:

    - `plateau`: whether its average loss is still at the height of the plateau.
    - `plateau_left_at`: the first step at which the loss was below it, or null.
    - `phase`: the phase as far as diagnostics determine it, or null.
    - `stopped_early`: why this row is the last, only in the last row of a run that stops before its last step.

    Attributes:
      stop_state: when the run ends.
    """

    def __init__(
        self,
        folder: RunFolder,
        tasks: TaskDistribution,
        start_step: int,
        on_row: Sequence[Callable[[Row], None]],
        *,
        steps: int,
        steps_per_dispatch: int,
        early_stop: EarlyStop | None,
    ):
        self.stop_state = StopState(steps)
        self._tracker = PlateauTracker(tasks.num_classes, tasks.num_tasks)
        self._folder = folder
        self._threshold = plateau.threshold(tasks.num_classes)
        self._on_row = on_row
        self._steps_per_dispatch, self._early_stop = steps_per_dispatch, early_stop
        self._metrics, self._timing = JsonLines(folder.metrics), JsonLines(folder.timing)
        self._written_at = time.time()
        if self._writes:
            for row in self._metrics.drop_after(start_step):
                self._follow(row["step"], row["loss_ema"], row.get("diagnostics"))
            self._timing.drop_after(start_step)
        # All processes have to end together, and only the first one may read what it rewrites.
        known = json.dumps([dataclasses.asdict(self._tracker), dataclasses.asdict(self.stop_state)])
        tracker, stop_state = json.loads(distributed.broadcast(known, "how the run stands"))
        self._tracker, self.stop_state = PlateauTracker(**tracker), StopState(**stop_state)

    @property
    def _writes(self) -> bool:
        return distributed.is_primary()

    def write(self) -> None:
        """Writes the pending rows."""
        self._written_at = time.time()
        if self._writes:
            self._metrics.flush()
            self._timing.flush()

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
        self._follow(step, row["loss_ema"], measured.get("diagnostics"))
        row |= {"plateau_left_at": self._tracker.exit_step, "phase": self._tracker.phase} | measured
        self._metrics.append(row)
        self._timing.append({"step": step, "time": time.time()})
        for callback in self._on_row:
            callback(row)
        if time.time() - self._written_at > _WRITE_SECONDS:
            self.write()
        return None

    def _follow(self, step: int, loss_ema: float, diagnostics: dict[str, Any] | None) -> None:
        """Updates `_tracker` and `stop_state` by a row."""
        self._tracker.follow(step, loss_ema, diagnostics)
        if self._early_stop is None or self.stop_state.why:
            return
        why = self._early_stop.reason(self.stop_state, step, self._tracker, loss_ema, diagnostics is not None)
        last_step = step + self._steps_per_dispatch  # the device is already busy with these steps
        if why and last_step < self.stop_state.last_step:
            self.stop_state.why, self.stop_state.last_step = why, last_step

    def _mark_diverged(self, step: int, metrics: dict[str, np.floating]) -> Diverged:
        self.write()
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
