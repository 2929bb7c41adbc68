"""Trains runs, one or a stack of them, from their settings to folders that are DONE."""

import contextlib
import functools
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from gpicl_flax.config import Config
from gpicl_flax.errors import Diverged, Preempted
from gpicl_flax.records import stack_lease
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.lease import LeaseLost
from gpicl_flax.records.plateau_rule import PlateauRule, begun
from gpicl_flax.records.run_folder import DONE, RunFolder, as_json, write_atomically, write_together
from gpicl_flax.runs.check import check_data, check_folder
from gpicl_flax.runs.evaluate import write_evaluation
from gpicl_flax.runs.run import ResolvedRun, Run, resolve
from gpicl_flax.runs.run_info import run_info
from gpicl_flax.runtime import distributed, gcs
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.training import tensorboard
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.loop import Member, train
from gpicl_flax.training.state import abstract_state, shardings_of


class RunSpec(NamedTuple):
    """A run to be started, or resumed.

    Attributes:
      resolved: its configuration and settings.
      folder: its folder, which need not exist.
      on_row: each is called with every new row of its metrics.jsonl.
      accept_lost_log: resume it even if its log has lost rows, see `RunLog`.
      plateau_rule: saved in the folder if it has not begun, and then followed by every process that trains it.
    """

    resolved: ResolvedRun
    folder: RunFolder
    on_row: Sequence[Callable[[Row], None]] = ()
    accept_lost_log: bool = False
    plateau_rule: PlateauRule | None = None

    @classmethod
    def from_config(cls, config: Config, folder: RunFolder, *on_row: Callable[[Row], None]) -> "RunSpec":
        """Resolves a configuration; raises UsageError as `resolve` does."""
        return cls(resolve(config), folder, on_row)


def execute(
    specs: Sequence[RunSpec], stop: StopRequest, *, wait: bool = False, on_begin: Callable[[], None] = lambda: None
) -> list[Diverged | None]:
    """Trains runs as the members of a stack, meta-tests them and marks their folders DONE.

    Each run resumes where it stopped. Runs may differ only in what `train` allows members to differ in (see
    `sweep.stacking`). A single run is a stack of one.

    Args:
      specs: the runs.
      stop: the runs continue until it is requested. A meta-test that has begun is finished.
      wait: if another process recently had a run, block until it is clear whether that process is alive.
      on_begin: called once it is certain that no other process trains the runs.

    Returns:
      For each run why it diverged, or None.

    Raises:
      UsageError: the settings, the data or a folder do not fit; nothing has been written.
      Preempted: a stop was requested; what was trained is saved.
      stack_lease.LeaseUnavailable: others train some of the runs, or these have ended; nothing has been written.
      GpiclError: with `wait`, another process is alive and trains a run.
    """
    resolved, folders = [spec.resolved for spec in specs], [spec.folder for spec in specs]
    run = resolved[0].run  # for everything that the members have in common
    place = folders[0].path
    gcs.each(lambda spec: check_folder(spec.resolved.config, spec.folder), specs, place)
    mesh = run.check_devices(len(specs))
    datasets = {name: run.tasks.load(name) for name in run.base_datasets}
    dataset, test_datasets = datasets[run.tasks.data_name], [datasets[name] for name in run.test_names]
    drawing = run.tasks.drawing(dataset)
    with contextlib.ExitStack() as stack:
        # With the leases, no one else trains these runs. All hosts must train the same runs, on the original data.
        check_leases = stack.enter_context(stack_lease.hold(folders, stop if wait else None))
        on_begin()
        # A process that was stopped for long may come back when another one has its runs. Any other error is then a
        # consequence: the other process cleans up its files.
        stack.enter_context(_lost_lease_first(check_leases, folders))
        gcs.each(functools.partial(_check_checkpoints, dataset=dataset), folders, place)
        distributed.check_same("\n".join(each.config.text for each in resolved), "configuration")
        gcs.each(lambda spec: _write_settings(spec, dataset, drawing, mesh), specs, place)

        # Training. A meta-test at a checkpoint is a callback of its member.
        stack.enter_context(jax.set_mesh(mesh))
        stack.enter_context(run.precision())
        members, meta_tests = [], []
        for spec in specs:
            own = spec.resolved.run
            on_row = [lambda row: check_leases(), *_sinks(own, spec.folder, stack), *spec.on_row]
            meta_test = functools.partial(_meta_test_member, own, drawing, test_datasets, spec.folder)
            on_checkpoint = [meta_test] if own.meta_test.at_checkpoints else []
            text = spec.resolved.config.text
            accept = spec.accept_lost_log
            members.append(Member(own.seed, own.optimizer, own.tasks, spec.folder, text, on_row, on_checkpoint, accept))
            meta_tests.append(meta_test)
        trained = train(
            run.model,
            members,
            dataset,
            run.task_batches(drawing, mesh, len(specs)),
            run.training,
            num_workers=run.loader.num_workers,
            stop=stop,
        )

        # The meta-tests, one member after another, each on all devices.
        for meta_test, folder, step, params, diverged in zip(meta_tests, folders, *trained, strict=True):
            if diverged:
                continue
            if distributed.max_over_processes(int(stop.requested), "the end of training"):
                raise Preempted(f"stopped after the last of {step:,} steps; start it again for the meta-test")
            meta_test(step, params)
            if distributed.is_primary():
                folder.mark(DONE)
                folder.remove_leftovers()
    return trained.diverged


def _check_checkpoints(folder: RunFolder, dataset: TaskData) -> None:
    """Raises UsageError if the checkpoints of a run, where there are any, belong to other data."""
    if distributed.is_primary():
        folder.remove_leftovers()
    if folder.checkpoints.exists():
        with Checkpoints(folder.checkpoints) as checkpoints:
            check_data(folder, checkpoints, dataset)


@contextlib.contextmanager
def _lost_lease_first(check_leases: Callable[[], None], folders: Sequence[RunFolder]) -> Iterator[None]:
    """Raises LeaseLost in place of any other error if the lease is lost."""
    try:
        yield
    except Exception:
        try:
            check_leases()
        except LeaseLost:
            _remove_own_leftovers([folder for folder in folders if folder.ended])
            raise
        raise


def _remove_own_leftovers(folders: Sequence[RunFolder]) -> None:
    """Removes what a save of this process leaves in folders of runs that another process has ended meanwhile."""
    for _ in range(20):  # TensorStore's threads make files, and their folders, for some time after a save has failed
        for folder in folders:
            folder.remove_leftovers()
        time.sleep(0.1)


def _write_settings(spec: RunSpec, dataset: TaskData, drawing: Hashable, mesh: jax.sharding.Mesh) -> None:
    """Writes config.gin, operative_config.gin and run.json, and before them a rule for the stop."""
    if distributed.is_primary():
        # The configuration comes first: with it the folder is a run folder, which can be resumed. Only a rule comes
        # before it, so that a run which was begun without one goes on without.
        folder, info = spec.folder, run_info(spec.resolved.run, dataset, drawing, mesh)
        if spec.plateau_rule is not None and not begun(folder):
            write_atomically(folder.early_stop, spec.plateau_rule.text)
        write_atomically(folder.config, spec.resolved.config.text)
        texts = {folder.operative_config.name: spec.resolved.operative_config, folder.run_info.name: as_json(info)}
        write_together(folder.path, {name: text.encode() for name, text in texts.items()})


def _sinks(run: Run, folder: RunFolder, stack: contextlib.ExitStack) -> list[Callable[[Row], None]]:
    """Returns the functions that take the rows of a run besides its own log, until the stack ends."""
    if not run.tensorboard or not distributed.is_primary():
        return []
    return [stack.enter_context(contextlib.closing(tensorboard.TensorBoard(folder)))]


def _meta_test_member(
    run: Run, drawing: Hashable, datasets: list[TaskData], folder: RunFolder, step: int, params: Any
) -> None:
    """Meta-tests one member of a stack after a step."""
    # Members train side by side, but are tested one after another on all the devices.
    mesh = run.mesh.build()
    like = abstract_state(run.model, run.optimizer, run.tasks, mesh=mesh)
    params = jax.device_put(params, shardings_of(like.params))
    with jax.set_mesh(mesh):
        write_evaluation(run, run.task_batches(drawing, mesh), params, step, datasets, folder.evaluation(step))
