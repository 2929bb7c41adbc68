"""The training loop: keeps the device busy, logs the previous dispatch meanwhile, saves, and stops on request.

It trains a stack of runs, or a single one as a stack of one. Each member has its own folder, checkpoints, log and end.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax

from gpicl_flax.errors import Diverged, Preempted
from gpicl_flax.models import SequenceModel
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.run_folder import RunFolder, write_json
from gpicl_flax.runtime import distributed, gcs
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.tasks.families.family import TaskFamily
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import device_data, partitioning
from gpicl_flax.training.action_sync import Action, ActionSync
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.cost import estimate
from gpicl_flax.training.log_writer import LogWriter
from gpicl_flax.training.probes import telemetry
from gpicl_flax.training.probes.class_accuracies import make_class_accuracies
from gpicl_flax.training.probes.diagnostics import make_diagnose
from gpicl_flax.training.run_log import RunLog
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import TrainState, abstract_state, init_states, member_state, stack_states
from gpicl_flax.training.step import Metrics, PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches


@dataclasses.dataclass(frozen=True)
class Member:
    """The part of a stack that belongs to one run.

    Attributes:
      seed: the seed of its parameters, tasks and data.
      optimizer: the same as those of the others, except for its hyperparameters.
      tasks: the same as those of the others, except for their `member_settings`.
      folder: where it writes its checkpoints and logs.
      config: text that its checkpoints carry, together with the fingerprint of the data.
      on_row: each is called with every new row of its metrics.jsonl.
      on_checkpoint: each is called with (step, params) after each periodic checkpoint except the final one. On resume
        it is called again for the restored checkpoint, in case the previous process died before calling it.
      accept_lost_log: resume the run even if its log has lost rows, see `RunLog`.
    """

    seed: int
    optimizer: optax.GradientTransformation
    tasks: TaskFamily
    folder: RunFolder
    config: str
    on_row: Sequence[Callable[[Row], None]] = ()
    on_checkpoint: Sequence[Callable[[int, Any], None]] = ()
    accept_lost_log: bool = False


class Trained(NamedTuple):
    """The results of the members.

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
    dataset: TaskData,
    task_batches: TaskBatches,
    training: Training,
    *,
    num_workers: int,
    stop: StopRequest,
) -> Trained:
    """Trains every member to its end: its last step, an early stop, or its divergence.

    Each resumes from its folder's newest checkpoint if it has one. Members that start from different steps keep the
    difference: each sees the data of its own steps. A member that has ended stays in the program until all have ended,
    but its further results are discarded.

    Args:
      model: the model of all members.
      members: the runs.
      dataset: the data that tasks are made from.
      task_batches: the batches of any member.
      training: the settings of all members.
      num_workers: processes of the loader, see `Loader`.
      stop: checked after every dispatch.

    Raises:
      UsageError: the model's parameters do not divide over the mesh.
      Preempted: a stop was requested; the states are saved.
    """
    mesh, sync = task_batches.mesh, ActionSync()
    with contextlib.ExitStack() as stack:
        # Before the loop, everything is put in place: members where they stopped, states on the mesh, programs, data.
        like = abstract_state(model, members[0].optimizer, members[0].tasks, mesh=mesh)
        writer = stack.enter_context(LogWriter())
        runs = _member_runs(members, training, dataset.fingerprint, like, writer, stack)
        # Telemetry keeps its own copy, because every dispatch reuses the memory of the states.
        initial_params = _fresh_states(model, runs, mesh).params if training.telemetry and training.steps else None
        states = _starting_states(model, runs, mesh)
        run_inputs = _run_inputs(members, mesh, initial_params)
        train_steps = make_train_steps(
            model,
            members[0].optimizer,
            task_batches,
            accumulation=training.accumulation,
            curriculum=training.curriculum,
        )
        examples = task_batches.put_on_mesh(dataset, dataset.train)
        if dataset.train.nbytes:
            device_data.log(dataset.name, dataset.train, examples.on_device)
        diagnose = _make_diagnose(model, members, task_batches, training, examples)
        batches = _training_batches(runs, task_batches, training, examples, num_workers)
        stack.callback(batches.close)
        if training.steps == 0:
            _save(runs, states, Action.CONTINUE, writer)

        # The loop. A call of `train_steps` returns at once, so the host logs one dispatch while the device is busy with
        # the next one.
        running, saved_at = None, time.monotonic()
        while any(run.is_training for run in runs):
            batch = partitioning.shard_stacked_batches(mesh, next(batches))
            if running is None and any(run.step_flops is None for run in runs):  # once; the call uses the same trace
                traced = cast(Any, train_steps).trace(states, run_inputs, examples.data, batch)
                flops = estimate.matmul_flops(traced.jaxpr) // (len(runs) * training.steps_per_dispatch)
                for run in runs:
                    run.step_flops = flops
            states, metrics, measured = train_steps(states, run_inputs, examples.data, batch)
            _log(runs, running, training)
            running = _Dispatch([run.advance() for run in runs], metrics, {})
            if any(training.is_due("telemetry", step) for step in running.steps):
                running.measured["telemetry"] = measured
            if any(training.is_due("diagnostics", step) for step in running.steps):
                running.measured["diagnostics"] = diagnose(states.params)

            # A checkpoint never contains steps that are not in the log, so the log is written first.
            if any(run.is_due(Action.CONTINUE) for run in runs):
                _log(runs, running, training)
                running = None
            overdue = training.checkpoint_seconds and time.monotonic() - saved_at > training.checkpoint_seconds
            wanted = Action.SAVE if overdue and distributed.is_primary() else Action.CONTINUE
            action = sync(Action.STOP if stop.requested else wanted)
            if any(run.is_due(action) for run in runs):
                _log(runs, running, training)
                running = None
                _save(runs, states, action, writer)
                saved_at = time.monotonic()

            if action == Action.STOP and any(run.is_training for run in runs):
                for run in runs:
                    run.checkpoints.wait()
                step = max(run.step for run in runs)
                raise Preempted(f"stopped at step {step:,} of {training.steps:,}, saved; start it again to go on")
    for run in runs:
        run.write_flops()
    return Trained([run.step for run in runs], [run.params for run in runs], [run.diverged for run in runs])


def _member_runs(
    members: Sequence[Member],
    training: Training,
    fingerprint: str,
    like: TrainState,
    writer: LogWriter,
    stack: contextlib.ExitStack,
) -> list["_MemberRun"]:
    """Returns the members where they stopped, or at step 0."""

    def one(member: Member) -> _MemberRun:
        return _MemberRun(member, training, fingerprint, like, writer, stack)

    if jax.process_count() > 1:  # processes talk about each member, and have to do so in the same order
        return [one(member) for member in members]
    return gcs.each(one, members, members[0].folder.path)


def _starting_states(model: SequenceModel, runs: Sequence["_MemberRun"], mesh: jax.sharding.Mesh) -> TrainState:
    """Returns the states of the members' checkpoints, or fresh ones where there is none yet."""
    restored = [run.resume() for run in runs]
    known = [state for state in restored if state is not None]
    if len(known) == len(runs):
        return stack_states(known)
    fresh = _fresh_states(model, runs, mesh)
    if not known:
        return fresh
    return stack_states([state or member_state(fresh, index, runs[0].like) for index, state in enumerate(restored)])


def _fresh_states(model: SequenceModel, runs: Sequence["_MemberRun"], mesh: jax.sharding.Mesh) -> TrainState:
    members = [run.member for run in runs]
    seeds = [member.seed for member in members]
    return init_states(model, [member.optimizer for member in members], members[0].tasks, seeds=seeds, mesh=mesh)


def _run_inputs(members: Sequence[Member], mesh: jax.sharding.Mesh, initial_params: Any) -> PerRunInputs:
    own = PerRunInputs(
        np.array([member.seed for member in members], np.uint32),
        _numbers(members),
    )
    return partitioning.shard_members(mesh, own)._replace(initial_params=initial_params)


def _numbers(members: Sequence[Member]) -> Any:
    """Returns the numbers of the members' tasks that programs read, arrays [S] float32."""
    return jax.tree.map(lambda *x: np.array(x, np.float32), *(member.tasks.numbers() for member in members))


def _make_diagnose(
    model: SequenceModel,
    members: Sequence[Member],
    task_batches: TaskBatches,
    training: Training,
    examples: SplitOnMesh,
) -> Callable[[Any], dict[str, Any]]:
    """Returns a function that diagnoses parameters [S, ...]. If there are no diagnostics, it is never called."""
    if not (training.diagnostics and training.steps):
        return lambda params: {}
    count = training.diagnostics.sequences_at_once(task_batches.tasks.task_batch_size, training.accumulation)
    seeds = [member.seed for member in members]
    families, references = [member.tasks for member in members], training.diagnostics.references
    inputs = model, task_batches, examples, seeds, count, _numbers(members), families
    diagnose = make_diagnose(*inputs, references)
    if not training.diagnostics.class_accuracies:
        return diagnose
    accuracies = make_class_accuracies(*inputs)
    return lambda params: diagnose(params) | accuracies(params)


def _training_batches(
    runs: Sequence["_MemberRun"],
    task_batches: TaskBatches,
    training: Training,
    examples: SplitOnMesh,
    num_workers: int,
) -> TrainingBatches:
    """Returns the batches of each member from the step where it stopped, with only the part that this process holds."""
    mesh = task_batches.mesh
    return TrainingBatches(
        [Stream(run.member.tasks, run.member.seed, run.step) for run in runs],
        examples.split,
        gather=not examples.on_device,
        steps_per_batch=training.steps_per_dispatch,
        num_workers=num_workers,
        local_members=partitioning.local_members(mesh, len(runs)),
        local_rows=partitioning.local_rows(mesh, task_batches.tasks.task_batch_size),
    )


class _Dispatch(NamedTuple):
    """The dispatch that the device is busy with.

    Attributes:
      steps: for each member the step after it; None: the member had ended before.
      metrics: [steps, S].
      measured: arrays [S, ...] at its end, under the name of the field of `Training` that requests them.
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
            run.add_to_log(step, {name: values[:, index] for name, values in metrics.items()}, own)


def _save(runs: Sequence["_MemberRun"], states: TrainState, action: Action, writer: LogWriter) -> None:
    """Saves the members whose checkpoint is due. Their logs are written first."""
    writer.flush()
    for index, run in enumerate(runs):
        if run.is_due(action):
            run.save(states, index, action)
            if len(runs) > 1 and jax.process_count() > 1:
                # Orbax counts the saves of a process in one sequence. Two concurrent saves would be matched wrongly
                # across hosts.
                run.checkpoints.wait()
    writer.merge()


class _MemberRun:
    """A member in progress: its step, its checkpoints and its logs."""

    def __init__(
        self,
        member: Member,
        training: Training,
        fingerprint: str,
        like: TrainState,
        writer: LogWriter,
        stack: contextlib.ExitStack,
    ):
        self.member = member
        self.like = like
        self.diverged: Diverged | None = None
        self.params: Any = None  # set after the last step
        self.checkpoints = stack.enter_context(Checkpoints(member.folder.checkpoints, keep=training.keep_checkpoints))
        self._training = training
        self._meta = {"config": member.config, "data": fingerprint}
        self.step_flops: int | None = None  # those of the matrix products of a step, once the program is known
        self._restored, self.step, log = None, 0, None
        if self.checkpoints.latest_step is not None:
            self._restored, self.step, meta = self.checkpoints.restore(like)
            log, self.step_flops = meta.get("log"), meta.get("step_flops")
        self._saved_at = self.step if self._restored is not None else None
        self._log = RunLog(
            member.folder,
            member.tasks,
            self.step,
            member.on_row,
            writer,
            steps=training.steps,
            steps_per_dispatch=training.steps_per_dispatch,
            early_stop=training.early_stop,
            saved=log,
            accept_lost_log=member.accept_lost_log,
        )

    def resume(self) -> TrainState | None:
        """Returns the state of the newest checkpoint, or None, without keeping a copy of it."""
        state, self._restored = self._restored, None
        if state is not None:
            self._keep_at_the_end(state)
            self._on_checkpoint(state)
        return state

    @property
    def is_training(self) -> bool:
        return not self.diverged and self.step < self._log.stop_state.last_step

    def advance(self) -> int | None:
        """Counts the steps of a dispatch. Returns the step after it, or None for a member that has ended."""
        if not self.is_training:
            return None
        self.step += self._training.steps_per_dispatch
        return self.step

    def is_due(self, action: Action) -> bool:
        """Returns whether a checkpoint is to be saved now."""
        if self.diverged or self._saved_at == self.step:
            return False
        periodic = self.step > 0 and self.step % self._training.checkpoint_period == 0
        return periodic or action != Action.CONTINUE or not self.is_training

    def save(self, states: TrainState, index: int, action: Action) -> None:
        """Saves the member's state, in the background."""
        state = member_state(states, index, self.like)
        meta = self._meta | {"log": self._log.record(), "step_flops": self.step_flops}
        self.checkpoints.save(self.step, state, meta)
        self._saved_at = self.step
        self._keep_at_the_end(state)
        if action != Action.STOP:  # a process that is asked to stop may have only seconds
            self._on_checkpoint(state)

    def _on_checkpoint(self, state: TrainState) -> None:
        if self.is_training and self.step % self._training.checkpoint_period == 0:
            for callback in self.member.on_checkpoint:
                callback(self.step, state.params)

    def _keep_at_the_end(self, state: TrainState) -> None:
        # Now, because the member's place in the stack continues to change until all members have ended.
        if not self.is_training:
            self.params = state.params

    def write_flops(self) -> None:
        """Adds the flops of a step to run.json, where reports find what training cost."""
        if self.step_flops is not None and not self.diverged and distributed.is_primary():
            folder = self.member.folder
            write_json(folder.run_info, folder.read_run_info() | {"step_flops": self.step_flops})

    def add_to_log(self, step: int, metrics: dict[str, np.ndarray], measured: dict[str, Any]) -> None:
        """Logs the metrics [steps] of a dispatch and the measurements at its end, or notes that the run diverged."""
        if "telemetry" in measured:
            measured |= {"telemetry": telemetry.by_tensor(measured["telemetry"], self.like.params)}
        self.diverged = self._log.add(step, metrics, measured)
