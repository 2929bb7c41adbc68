"""The training loop: keeps the device busy, logs what it did a dispatch ago, saves, stops when told to."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import gin
import jax
import numpy as np
import optax

from gpicl_flax.errors import Diverged, Preempted, UsageError, check_positive_integers, check_types
from gpicl_flax.models import SequenceModel
from gpicl_flax.records import plateau
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.tasks.base_dataset import BaseDataset
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.loader import Loader, TrainingBatches
from gpicl_flax.tasks.projections import ProjectionForm
from gpicl_flax.training import partitioning, placement
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.preemption import StopRequest
from gpicl_flax.training.step import Metrics, TrainState, init_state, make_train_steps

Row = dict[str, Any]

_FLUSH_SECONDS = 5.0
_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Training:
    """How long and in which portions a run trains.

    Attributes:
      steps: training steps of the whole run; 0: only meta-test what the run starts with.
      steps_per_dispatch: steps that one call of the device makes; their mean is one row of metrics.jsonl.
      accumulation: parts that a batch is split into to save memory; the result is that of the whole batch.
      checkpoint_period: steps between checkpoints, a multiple of steps_per_dispatch; the last step is always saved.
      keep_checkpoints: newest checkpoints that are kept.

    Raises:
      UsageError: a value is out of its range, or the steps do not divide.
    """

    steps: int = 50_000
    steps_per_dispatch: int = 10
    accumulation: int = 1
    checkpoint_period: int = 1000
    keep_checkpoints: int = 2

    def __post_init__(self):
        check_positive_integers(self, *(field.name for field in dataclasses.fields(self) if field.name != "steps"))
        check_types(self, steps=int)
        if self.steps < 0:
            raise UsageError(f"Training.steps must not be negative, but is {self.steps}")
        for name in ("steps", "checkpoint_period"):
            if getattr(self, name) % self.steps_per_dispatch:
                raise UsageError(
                    f"Training.{name} = {getattr(self, name)} is not a multiple of "
                    f"Training.steps_per_dispatch = {self.steps_per_dispatch}"
                )


def train(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    dataset: BaseDataset,
    form: ProjectionForm,
    training: Training,
    loader: Loader,
    *,
    seed: int,
    mesh: jax.sharding.Mesh,
    folder: RunFolder,
    config: str,
    stop: StopRequest,
    on_row: Callable[[Row], None] = lambda row: None,
) -> TrainState:
    """Trains to the last step, from the folder's newest checkpoint if it has one, and returns the final state.

    Args:
      config: text that checkpoints carry, beside the fingerprint of the data.
      stop: checked after every dispatch.
      on_row: called with every new row of metrics.jsonl.

    Raises:
      UsageError: the model's parameters do not divide over the mesh.
      Preempted: told to stop; the state is saved.
      Diverged: the loss, the gradient or a parameter is not finite; the folder is marked.
    """
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder.checkpoints, keep=training.keep_checkpoints))
        fresh = checkpoints.latest_step is None
        state, step = init_state(model, optimizer, tasks, seed=seed, mesh=mesh, abstract=not fresh), 0
        meta = {"config": config, "data": dataset.fingerprint}
        if not fresh:
            state, step = checkpoints.restore(state)
        log = _RunLog(folder, tasks.num_classes, step, on_row)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        train_steps = make_train_steps(
            model, optimizer, tasks, form, mesh=mesh, shardings=shardings, accumulation=training.accumulation
        )
        on_device = placement.on_device(loader.placement, dataset.name, dataset.train)
        placed = placement.place(mesh, dataset, dataset.train if on_device else None, form, normalize=tasks.normalize)
        batches = TrainingBatches(
            tasks,
            dataset.train,
            seed=seed,
            gather=not on_device,
            start_step=step,
            steps_per_batch=training.steps_per_dispatch,
            num_workers=loader.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        stack.callback(batches.close)
        if fresh and training.steps == 0:
            checkpoints.save(step, state, meta)
        while step < training.steps:
            batch = partitioning.shard_batch(mesh, next(batches), batch_axis=1)
            state, metrics = train_steps(state, np.uint32(seed), placed, batch)
            step += training.steps_per_dispatch
            log.add(step, metrics)
            if step % training.checkpoint_period == 0 or step == training.steps or stop.requested:
                log.flush()  # a checkpoint never stands for steps that are not in the log
                checkpoints.save(step, state, meta)
            if stop.requested and step < training.steps:
                checkpoints.wait()
                raise Preempted(f"stopped at step {step:,} of {training.steps:,}, saved; start it again to go on")
    return state


class _RunLog:
    """Writes metrics.jsonl and timing.jsonl, one dispatch behind the device so that it never waits for the host."""

    def __init__(self, folder: RunFolder, num_classes: int, start_step: int, on_row: Callable[[Row], None]):
        self._folder = folder
        self._threshold = plateau.threshold(num_classes)
        self._on_row = on_row
        self._running: tuple[int, Metrics] | None = None
        self._metrics, self._timing = JsonLines(folder.metrics), JsonLines(folder.timing)
        self._flushed_at = time.time()
        if self._writes:
            self._metrics.drop_after(start_step)
            self._timing.drop_after(start_step)

    @property
    def _writes(self) -> bool:
        return jax.process_index() == 0

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics [S] of the steps up to `step`, still being computed; logs those it took before."""
        self._log_running()
        self._running = (step, metrics)

    def flush(self) -> None:
        """Waits for what is being computed and writes everything."""
        self._log_running()
        self._write()

    def _write(self) -> None:
        self._flushed_at = time.time()
        if self._writes:
            self._metrics.flush()
            self._timing.flush()

    def _log_running(self) -> None:
        if self._running is None:
            return
        step, metrics = self._running
        self._running = None
        metrics = jax.device_get(metrics)
        finite = np.logical_and.reduce([np.isfinite(metrics[name]) for name in _MUST_BE_FINITE])
        if not finite.all():
            self._diverged(step - len(finite) + 1 + int(np.argmin(finite)), metrics, int(np.argmin(finite)))
        row: Row = {"step": step}
        for name, values in sorted(metrics.items()):
            # An average over time is read at its end, all else is the mean over the dispatch.
            row[name] = float(values[-1] if name == "loss_ema" else values.mean(dtype=np.float64))
        row["plateau"] = row["loss_ema"] >= self._threshold
        self._metrics.append(row)
        self._timing.append({"step": step, "time": time.time()})
        self._on_row(row)
        if time.time() - self._flushed_at > _FLUSH_SECONDS:
            self._write()

    def _diverged(self, step: int, metrics: Metrics, index: int) -> None:
        self._write()
        values = ", ".join(f"{name} {metrics[name][index]}" for name in _MUST_BE_FINITE)
        message = f"diverged at step {step:,}: {values}; try a lower learning rate or clipping"
        if self._writes:
            self._folder.mark(DIVERGED, message + "\n")
        raise Diverged(message)
