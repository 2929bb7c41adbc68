"""The training programs of a sweep, traced without any data. Points that differ only in numbers share a program."""

import dataclasses
from collections.abc import Sequence

import jax

from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import stacking
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training.cost import lowering

# Settings of a run that do not change its training program, or that are considered elsewhere.
_ELSEWHERE = ("MetaTest.", "Diagnostics.", "EarlyStop.", "Telemetry.", "Loader.num_workers")
_ELSEWHERE_EXACTLY = (
    "Run.meta_test",
    "Run.tensorboard",
    "Training.steps",
    "Training.checkpoint_period",
    "Training.keep_checkpoints",
    "Training.diagnostics",
    "Training.early_stop",
)


@dataclasses.dataclass(frozen=True)
class Program:
    """Points that share one training program.

    Attributes:
      points: at least one; each trains for a number of steps.
      runs: their settings.
    """

    points: tuple[Point, ...]
    runs: tuple[Run, ...]

    @property
    def run(self) -> Run:
        """The settings of the first point."""
        return self.runs[0]

    def parts(self) -> "list[Program]":
        """Returns the program once for each stage of the sweep and number of steps, with the points that have them."""
        found: dict[tuple[str, int], Program] = {}
        for point, run in zip(self.points, self.runs, strict=True):
            key, own = (point.stage, run.training.steps), Program((point,), (run,))
            found[key] = found[key] + own if key in found else own
        return list(found.values())

    @property
    def name(self) -> str:
        """The name of a program: what its points share among the things that vary in the sweep, the model first.

        Labels that they do not share follow. Without either, the name is the model alone.
        """
        first, *others = (point.names for point in self.points)
        common = [name for name in first if all(name in other for other in others)]
        common.sort(key=lambda name: "=" in name)
        for label in self.run.labels:
            values = list(dict.fromkeys(run.labels[label] for run in self.runs if label in run.labels))
            if len(values) > 1:
                common.append(f"{label}={'|'.join(values)}")
        return " ".join(common) or type(self.run.model).__name__

    def __add__(self, other: "Program") -> "Program":
        return Program(self.points + other.points, self.runs + other.runs)


def programs(points: Sequence[Point], runs: Sequence[Run]) -> list[Program]:
    """Returns the programs of the points that have steps to make, in the order of their first points."""
    found: dict[tuple, Program] = {}
    for point, run in zip(points, runs, strict=True):
        if run.training.steps:
            program, key = Program((point,), (run,)), _key(point, run)
            found[key] = found[key] + program if key in found else program
    return list(found.values())


def _key(point: Point, run: Run) -> tuple:
    exactly = (*_ELSEWHERE_EXACTLY, *(f"{run.tasks.gin_name}.{name}" for name in run.tasks.host_settings))
    elsewhere = [k for k in point.config.bindings if k.startswith(_ELSEWHERE) or k in exactly]
    examples = run.tasks.assumed_examples()
    return stacking.shape(point.config.without(*elsewhere), run), run.tasks.assumed_drawing(), examples.number


def trace(
    run: Run, mesh: jax.sharding.Mesh, *, num_members: int = 1, free_bytes: int | None = None
) -> tuple[jax.stages.Traced, int]:
    """Returns the training program of a run, or of a stack of similar runs, and the number of steps in a call of it.

    Args:
      run: the run.
      num_members: the number of runs.
      free_bytes: the free memory of a device, which determines where the base dataset is kept; None: unlimited.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    nbytes, placement = run.tasks.assumed_examples().nbytes, run.loader.placement
    fits = free_bytes is None or nbytes * 4 <= free_bytes
    on_device = not nbytes or placement == "device" or placement == "auto" and fits
    with run.precision():
        traced = lowering.trace(
            run.model,
            run.optimizer,
            run.tasks,
            run.tasks.assumed_drawing(),
            run.training,
            mesh=mesh,
            num_members=num_members,
            on_device=on_device,
        )
    return traced, run.training.steps_per_dispatch
