"""The logs of a run while it trains: metrics.jsonl and timing.jsonl."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gpicl_flax import hosts
from gpicl_flax.errors import Diverged
from gpicl_flax.records import plateau
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import DIVERGED, RunFolder

Row = dict[str, Any]

_WRITE_SECONDS = 5.0
_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")


class RunLog:
    """Writes metrics.jsonl and timing.jsonl."""

    def __init__(self, folder: RunFolder, num_classes: int, start_step: int, on_row: Callable[[Row], None]):
        self._folder = folder
        self._threshold = plateau.threshold(num_classes)
        self._on_row = on_row
        self._metrics, self._timing = JsonLines(folder.metrics), JsonLines(folder.timing)
        self._written_at = time.time()
        if self._writes:
            self._metrics.drop_after(start_step)
            self._timing.drop_after(start_step)

    @property
    def _writes(self) -> bool:
        return hosts.is_first()

    def write(self) -> None:
        """Writes the pending rows."""
        self._written_at = time.time()
        if self._writes:
            self._metrics.flush()
            self._timing.flush()

    def add(self, step: int, metrics: dict[str, np.ndarray], measured: dict[str, Any]) -> Diverged | None:
        """Takes the metrics [steps] of the steps up to `step`, and what was measured at it: diagnostics, say, by that name.

        If the metrics are not finite, marks the folder and says so.
        """
        finite = np.logical_and.reduce([np.isfinite(metrics[name]) for name in _MUST_BE_FINITE])
        if not finite.all():
            index = int(np.argmin(finite))
            return self._mark_diverged(step - len(finite) + 1 + index, {k: v[index] for k, v in metrics.items()})
        row: Row = {"step": step}
        for name, values in sorted(metrics.items()):
            # An average over time is read at its end, all else is the mean over the dispatch.
            row[name] = float(values[-1] if name == "loss_ema" else values.mean(dtype=np.float64))
        row["plateau"] = row["loss_ema"] >= self._threshold
        # JSON has no name for what is not finite.
        numbers = jax.tree.map(lambda x: np.asarray(x, np.float64), measured)
        row |= jax.tree.map(lambda x: np.where(np.isfinite(x), x, None).tolist(), numbers)
        self._metrics.append(row)
        self._timing.append({"step": step, "time": time.time()})
        self._on_row(row)
        if time.time() - self._written_at > _WRITE_SECONDS:
            self.write()
        return None

    def _mark_diverged(self, step: int, metrics: dict[str, np.floating]) -> Diverged:
        self.write()
        values = ", ".join(f"{name} {metrics[name]}" for name in _MUST_BE_FINITE)
        message = f"diverged at step {step:,}: {values}; try a lower learning rate or clipping"
        if self._writes:
            self._folder.mark(DIVERGED, message + "\n")
        return Diverged(message)
