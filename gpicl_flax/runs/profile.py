"""Profiles a run: some steps of its training without its logs, checkpoints and diagnostics, timed and traced."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.cost import kernels
from gpicl_flax.training.state import init_states
from gpicl_flax.training.step import PerRunInputs, make_train_steps


class Profile(NamedTuple):
    """The time that some steps of a run took, and where it went.

    Attributes:
      model, device: the model's name, and the kind of the devices.
      num_devices: how many of these train the run.
      steps, steps_per_dispatch: how many steps were traced, and as many timed, in dispatches of how many.
      compile_seconds: what compiling took; less where the program was compiled before.
      steps_per_second: without the tracer, in each case with the loader.
      traced_steps_per_second: with it.
      kernels: those that were traced, the costliest first.
      perfetto: the trace for Perfetto.
    """

    model: str
    device: str
    num_devices: int
    steps: int
    steps_per_dispatch: int
    compile_seconds: float
    steps_per_second: float
    traced_steps_per_second: float
    kernels: list[kernels.Kernel]
    perfetto: pathlib.Path


def profile(run: Run, folder: pathlib.Path, *, steps: int, warmup: int = 1) -> Profile:
    """Makes steps of a run: first `warmup`, then `steps` by the clock, then as many with the profiler's trace.

    Each number is rounded up to whole dispatches. Nothing of the run is kept.

    Args:
      run: the run.
      folder: where the trace goes; made if missing.
      steps, warmup: at least 1.

    Raises:
      UsageError: there is nothing to train, the data are missing, or the run does not fit the devices.
    """
    if not run.training.steps:
        raise UsageError("Training.steps = 0: there is no training step to profile")
    mesh = run.check_devices()
    each = run.training.steps_per_dispatch
    count = _rounded_up(steps, each)
    with jax.set_mesh(mesh), run.precision(), _Steps(run, mesh) as train_steps:
        compile_seconds = _seconds(train_steps.compile)
        train_steps(_rounded_up(warmup, each))
        untraced = _seconds(train_steps, count)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python would slow the host, and fill the trace
        with jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options):
            traced = _seconds(train_steps, count)
    file = kernels.trace_file(folder)
    return Profile(
        type(run.model).__name__,
        mesh.devices.flat[0].device_kind,
        mesh.size,
        count * each,
        each,
        compile_seconds,
        count * each / untraced,
        count * each / traced,
        kernels.costliest_first(jax.profiler.ProfileData.from_file(str(file)), train_steps.program),
        file.parent / "perfetto_trace.json.gz",
    )


def _rounded_up(steps: int, each: int) -> int:
    return -(-steps // each)


def _seconds(function: Callable[..., None], *arguments: int) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


class _Steps(contextlib.AbstractContextManager):
    """The training steps of a run, from the first one on. A call makes so many dispatches and waits for their end.

    Attributes:
      program: the text of the compiled program.
    """

    program: str = ""

    def __init__(self, run: Run, mesh: jax.sharding.Mesh):
        dataset = run.tasks.load(run.tasks.data_name)
        task_batches = run.task_batches(run.tasks.drawing(dataset), mesh)
        training = run.training
        self._mesh = mesh
        self._call: Any = make_train_steps(
            run.model, run.optimizer, task_batches, accumulation=training.accumulation, curriculum=training.curriculum
        )

        def fresh():
            return init_states(run.model, [run.optimizer], run.tasks, seeds=[run.seed], mesh=mesh)

        numbers = jax.tree.map(lambda x: np.array([x], np.float32), run.tasks.numbers())
        own = partitioning.shard_members(mesh, PerRunInputs(np.array([run.seed], np.uint32), numbers))
        examples = task_batches.put_on_mesh(dataset, dataset.train)
        self._states = fresh()
        self._inputs = own._replace(initial_params=fresh().params if training.telemetry else None), examples.data
        self._batches = TrainingBatches(
            [Stream(run.tasks, run.seed)],
            examples.split,
            gather=not examples.on_device,
            steps_per_batch=training.steps_per_dispatch,
            num_workers=run.loader.num_workers,
        )

    def __exit__(self, *error) -> None:
        self._batches.close()

    def _next(self) -> Any:
        return partitioning.shard_stacked_batches(self._mesh, next(self._batches))

    def compile(self) -> None:
        self._call = self._call.lower(self._states, *self._inputs, self._next()).compile()
        self.program = self._call.as_text()

    def __call__(self, dispatches: int) -> None:
        # As in training, the host reads the metrics of a dispatch while the devices are busy with the next one.
        running: Any = None
        for _ in range(dispatches):
            self._states, metrics, _ = self._call(self._states, *self._inputs, self._next())
            jax.device_get(running)
            running = metrics
        jax.block_until_ready((self._states, running))
