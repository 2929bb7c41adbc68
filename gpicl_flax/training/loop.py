"""The training loop: keeps the device busy, logs what it did a dispatch ago, saves, stops when told to.

It trains a stack of runs, or a single one as a stack of one. Each member has its folder, its checkpoints, its log and its end.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from gpicl_flax.errors import Diverged, Preempted
from gpicl_flax.models import SequenceModel
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runtime import distributed
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.loader import Loader, Stream, TrainingBatches
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import device_data, partitioning
from gpicl_flax.training.action_sync import Action, ActionSync
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.probes import telemetry
from gpicl_flax.training.probes.diagnostics import Diagnose
from gpicl_flax.training.run_log import RunLog
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import TrainState, abstract_state, init_states, member_state, stack_states
from gpicl_flax.training.step import Metrics, PerRunInputs, make_train_steps


@dataclasses.dataclass(frozen=True)
class Member:
    """What is a member's own.

    Attributes:
      seed: of its parameters, tasks and data.
      optimizer: as those of the others, but for its hyperparameters.
      tasks: as those of the others, but for the number of tasks and the bias.
      folder: where it leaves its checkpoints and logs.
      config: text that its checkpoints carry, beside the fingerprint of the data.
      on_row: called with every new row of its metrics.jsonl.
      on_checkpoint: called with the step and the parameters after the checkpoint of each period, but not that of the
        last step, is saved; again where the run goes on from one, in case that it did not come to it.
    """

    seed: int
    optimizer: optax.GradientTransformation
    tasks: TaskDistribution
    folder: RunFolder
    config: str
    on_row: Callable[[Row], None] = lambda row: None
    on_checkpoint: Callable[[int, Any], None] = lambda step, params: None


class Trained(NamedTuple):
    """Members at their end.

    Attributes:
      steps: the last step of each.
      params: the parameters of each after its last step; None for one that diverged.
      diverged: for each member why it diverged, or None.
    """

    steps: list[int]
    params: list[Any]
    diverged: list[Diverged | None]


def train(
    model: SequenceModel,
    members: Sequence[Member],
    dataset: BaseDataset,
    projection: ProjectionSpec,
    training: Training,
    loader: Loader,
    *,
    mesh: jax.sharding.Mesh,
    stop: StopRequest,
) -> Trained:
    """Trains every member to its end, from its folder's newest checkpoint if it has one: its last step, an early stop, or its
    divergence.

    Members that start from different steps keep the difference: each sees the data of its own steps. One that has ended
    is carried along until all have, without anything that is computed for it being kept.

    Args:
      stop: checked after every dispatch.

    Raises:
      UsageError: the model's parameters do not divide over the mesh.
      Preempted: told to stop; the states are saved.
    """
    tasks, optimizer = members[0].tasks, members[0].optimizer
    with contextlib.ExitStack() as stack:
        like = abstract_state(model, optimizer, tasks, mesh=mesh)
        runs = [_MemberRun(member, training, dataset.fingerprint, like, stack) for member in members]
        # Apart from the states, whose memory every dispatch uses again.
        initial_params = _fresh_states(model, runs, mesh).params if training.telemetry and training.steps else None
        states = _starting_states(model, runs, mesh)
        train_steps = make_train_steps(
            model,
            optimizer,
            tasks,
            projection,
            mesh=mesh,
            num_members=len(runs),
            accumulation=training.accumulation,
            curriculum=training.curriculum,
        )
        on_device = device_data.on_device(loader.placement, dataset.train)
        device_data.log(dataset.name, dataset.train, on_device)
        data = device_data.put_on_mesh(
            mesh, dataset, dataset.train if on_device else None, projection, normalize=tasks.normalize
        )
        run_inputs = PerRunInputs(
            np.array([member.seed for member in members], np.uint32),
            np.array([member.tasks.permute_labels_prob for member in members], np.float32),
        )
        run_inputs = partitioning.shard_members(mesh, run_inputs)._replace(initial_params=initial_params)
        batches = TrainingBatches(
            [Stream(run.member.tasks, run.member.seed, run.step) for run in runs],
            dataset.train,
            gather=not on_device,
            steps_per_batch=training.steps_per_dispatch,
            num_workers=loader.num_workers,
            local_members=partitioning.local_members(mesh, len(runs)),
            local_rows=partitioning.local_rows(mesh, tasks.task_batch_size),
        )
        stack.callback(batches.close)
        diagnose = None
        if training.diagnostics and training.steps:
            seeds = [member.seed for member in members]
            diagnose = Diagnose(
                training.diagnostics,
                model,
                tasks,
                projection,
                dataset.train,
                data,
                seeds=seeds,
                accumulation=training.accumulation,
                mesh=mesh,
            )
        if training.steps == 0:
            _save(runs, states, Action.CONTINUE)
        running, sync, saved_at = None, ActionSync(), time.monotonic()
        while any(run.is_training for run in runs):
            batch = partitioning.shard_stacked_batches(mesh, next(batches))
            states, metrics, measured = train_steps(states, run_inputs, data, batch)
            _log(runs, running, training)
            running = _Dispatch([run.advance() for run in runs], metrics, {})
            if any(training.is_due("telemetry", step) for step in running.steps):
                running.measured["telemetry"] = measured
            if any(training.is_due("diagnostics", step) for step in running.steps):
                running.measured["diagnostics"] = diagnose(states.params)
            # A checkpoint never stands for steps that are not in the log.
            if any(run.is_due(Action.CONTINUE) for run in runs):
                running = _log(runs, running, training)
            overdue = training.checkpoint_seconds and time.monotonic() - saved_at > training.checkpoint_seconds
            do = sync(
                Action.STOP
                if stop.requested
                else Action.SAVE
                if overdue and distributed.is_primary()
                else Action.CONTINUE
            )
            if any(run.is_due(do) for run in runs):
                running = _log(runs, running, training)
                _save(runs, states, do)
                saved_at = time.monotonic()
            if do == Action.STOP and any(run.is_training for run in runs):
                for run in runs:
                    run.checkpoints.wait()
                step = max(run.step for run in runs)
                raise Preempted(f"stopped at step {step:,} of {training.steps:,}, saved; start it again to go on")
    return Trained([run.step for run in runs], [run.params for run in runs], [run.diverged for run in runs])


def _starting_states(model: SequenceModel, runs: Sequence["_MemberRun"], mesh: jax.sharding.Mesh) -> TrainState:
    """Of the members' checkpoints, and fresh where there is none yet."""
    restored = [run.restore() for run in runs]
    if all(restored):
        return stack_states(restored)
    fresh = _fresh_states(model, runs, mesh)
    if not any(restored):
        return fresh
    return stack_states([state or member_state(fresh, index, runs[0].like) for index, state in enumerate(restored)])


def _fresh_states(model: SequenceModel, runs: Sequence["_MemberRun"], mesh: jax.sharding.Mesh) -> TrainState:
    members = [run.member for run in runs]
    seeds = [member.seed for member in members]
    return init_states(model, [member.optimizer for member in members], members[0].tasks, seeds=seeds, mesh=mesh)


class _Dispatch(NamedTuple):
    """What the device is busy with.

    Attributes:
      steps: for each member the step after it; None: it had ended before.
      metrics: [steps, S].
      measured: arrays [S, ...] at its end, under the name of what asks for them in `Training`.
    """

    steps: list[int | None]
    metrics: Metrics
    measured: dict[str, Any]


def _log(runs: Sequence["_MemberRun"], running: _Dispatch | None, training: Training) -> None:
    """Waits for a dispatch and logs it for the members that had not ended before it."""
    if running is None:
        return
    metrics, measured = jax.device_get((running.metrics, running.measured))
    for index, (run, step) in enumerate(zip(runs, running.steps, strict=True)):
        if step is not None and not run.diverged:
            due = {name: values for name, values in measured.items() if training.is_due(name, step)}
            own = jax.tree.map(lambda x, index=index: x[index], due)
            run.log(step, {name: values[:, index] for name, values in metrics.items()}, own)


def _save(runs: Sequence["_MemberRun"], states: TrainState, do: Action) -> None:
    """Saves the members whose checkpoint is due."""
    for index, run in enumerate(runs):
        if run.is_due(do):
            run.save(states, index, do)
            if len(runs) > 1 and jax.process_count() > 1:
                # Orbax counts the saves of a process in one sequence: two at once would not meet their like on other hosts.
                run.checkpoints.wait()


class _MemberRun:
    """A member on its way: its step, its checkpoints and its logs."""

    def __init__(
        self, member: Member, training: Training, fingerprint: str, like: TrainState, stack: contextlib.ExitStack
    ):
        self.member = member
        self.like = like
        self.step = 0
        self.diverged: Diverged | None = None
        self.params: Any = None  # after the last step
        self.checkpoints = stack.enter_context(Checkpoints(member.folder.checkpoints, keep=training.keep_checkpoints))
        self._training = training
        self._meta = {"config": member.config, "data": fingerprint}
        self._saved_at: int | None = None
        self._log: RunLog | None = None

    def restore(self) -> TrainState | None:
        """The state of the newest checkpoint, or None; after it the member has a step and a log."""
        state = None
        if self.checkpoints.latest_step is not None:
            state, self.step = self.checkpoints.restore(self.like)
            self._saved_at = self.step
        self._log = RunLog(
            self.member.folder,
            self.member.tasks,
            self.step,
            self.member.on_row,
            steps=self._training.steps,
            steps_per_dispatch=self._training.steps_per_dispatch,
            early_stop=self._training.early_stop,
        )
        if state is not None:
            self._keep_at_the_end(state)
            self._on_checkpoint(state)
        return state

    @property
    def is_training(self) -> bool:
        return not self.diverged and self.step < self._log.stop_state.last_step

    def advance(self) -> int | None:
        """Counts the steps of a dispatch; returns the step after it, or None for a member that has ended."""
        if not self.is_training:
            return None
        self.step += self._training.steps_per_dispatch
        return self.step

    def is_due(self, do: Action) -> bool:
        """Whether a checkpoint is to be saved now."""
        due = (
            not self.is_training
            or do != Action.CONTINUE
            or self.step
            and self.step % self._training.checkpoint_period == 0
        )
        return bool(due) and not self.diverged and self._saved_at != self.step

    def save(self, states: TrainState, index: int, do: Action) -> None:
        """Saves the member's state, in the background."""
        self._log.write()
        state = member_state(states, index, self.like)
        self.checkpoints.save(self.step, state, self._meta)
        self._saved_at = self.step
        self._keep_at_the_end(state)
        if do != Action.STOP:  # who is told to stop may have seconds
            self._on_checkpoint(state)

    def _on_checkpoint(self, state: TrainState) -> None:
        if self.is_training and self.step % self._training.checkpoint_period == 0:
            self.member.on_checkpoint(self.step, state.params)

    def _keep_at_the_end(self, state: TrainState) -> None:
        # The member's place in the stack goes on changing until all members have ended.
        if not self.is_training:
            self.params = state.params

    def log(self, step: int, metrics: dict[str, np.ndarray], measured: dict[str, Any]) -> None:
        """Logs the metrics [steps] of a dispatch and what was measured at its end, or notes that the run diverged in it."""
        if "telemetry" in measured:
            measured |= {"telemetry": telemetry.by_tensor(measured["telemetry"], self.like.params)}
        self.diverged = self._log.add(step, metrics, measured)
