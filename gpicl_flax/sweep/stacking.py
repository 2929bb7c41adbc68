"""Decides which points of a sweep train together, as the members of a stack: their programs differ only in numbers."""

from collections.abc import Callable, Sequence

import jax

from gpicl_flax.config import Config, Reference
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime import distributed
from gpicl_flax.sweep.grid import LABELS, Point
from gpicl_flax.training import optimizers
from gpicl_flax.training.cost import lowering
from gpicl_flax.training.device_data import free_device_memory
from gpicl_flax.training.partitioning import MeshShape

# Given a run and a number of similar runs, returns the sizes of the stacks that these form.
Sizes = Callable[[Run, int], list[int]]

# Numbers of the optimiser in which members may differ. Momentum is not among them: without it, the state has no place
# for it.
_OWN_OF_THE_OPTIMIZER = ("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay", "decay", "clip_norm")

_LARGEST = 32  # members on a device; more do not help, because a device is busy with these
_SHARE = 0.8  # the fraction of the free memory that the members of a stack may take


def plan(points: Sequence[Point], runs: Sequence[Run], sizes: Sizes) -> list[list[int]]:
    """Divides points into stacks, in the order of their first members.

    Two points can share a stack if their configurations differ only in the seed, in numbers of their task family (the
    number of tasks, if it is bounded, and the bias p, for instance), and in numbers of the optimiser that
    `Run.optimizer` names. That must be one of `training.optimizers`, and may not be mentioned elsewhere. A run of 0
    steps is alone.

    Args:
      points: the points of the sweep.
      runs: their resolved settings.
      sizes: `at_most`, or `largest`.

    Returns:
      The indices of the points of each stack.
    """
    stacks = []
    for group in groups(points, runs):
        start = 0
        for size in sizes(runs[group[0]], len(group)) if len(group) > 1 else [1]:
            stacks.append(group[start : start + size])
            start += size
    return sorted(stacks)


def groups(points: Sequence[Point], runs: Sequence[Run]) -> list[list[int]]:
    """Returns the indices of points that can share a stack, in the order of the first of each."""
    found: dict[str, list[int]] = {}
    for index, (point, run) in enumerate(zip(points, runs, strict=True)):
        found.setdefault(shape(point.config, run) if run.training.steps else point.run_id, []).append(index)
    return list(found.values())


def shape(config: Config, run: Run) -> str:
    """Returns the settings that members of a stack must share, as text."""
    bindings = config.bindings
    of_tasks = (f"{run.tasks.gin_name}.{name}" for name in run.tasks.member_settings)
    own = {LABELS, "Run.selection", *(key for key in ("Run.seed", *of_tasks) if _is_number(bindings.get(key)))}
    scope, _, name = str(bindings.get("Run.optimizer", Reference("@adam()"))).strip("@()").rpartition("/")
    last = name.rpartition(".")[2]  # gin also accepts module.name
    elsewhere = any(f"{last}()" in str(value) for key, value in bindings.items() if key != "Run.optimizer")
    if isinstance(run.optimizer, optimizers.Optimizer) and not elsewhere:
        keys = (f"{prefix}{name}.{argument}" for prefix in {"", f"{scope}/"} for argument in _OWN_OF_THE_OPTIMIZER)
        own |= {key for key in keys if _is_number(bindings.get(key))}
    return f"{optimizers.structure(run.optimizer)}\n{config.without(*own).text}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_most(size: int) -> Sizes:
    """Returns sizes for stacks of `size` runs, and a last one of the remaining runs."""
    return lambda run, count: [min(size, count - start) for start in range(0, count, size)]


def largest(run: Run, count: int) -> list[int]:
    """Returns stacks as large as fit on the devices here and keep them busy, in sizes that divide over them.

    On CPU each run is alone, because a single run keeps the cores busy.
    """
    if jax.local_devices()[0].platform == "cpu":
        return [1] * count
    devices = jax.device_count() // (max(run.mesh.data, 1) * run.mesh.fsdp * run.mesh.model)
    fit = int(_SHARE * free_device_memory() / _bytes_of_a_member(run))
    fit = -distributed.max_over_processes(-fit, "how many members fit")  # the host where the fewest fit decides
    each = max(1, min(_LARGEST, fit))
    sizes = []
    while count:
        if count >= devices:
            size = devices * min(each, count // devices)
        else:
            size = max(n for n in range(1, count + 1) if devices % n == 0)
        sizes.append(size)
        count -= size
    return sizes


def _bytes_of_a_member(run: Run) -> int:
    """Returns the bytes of one run's training steps on a device of its own, by the compiler's account."""
    here = [device for device in jax.devices() if device.process_index == jax.process_index()]
    mesh = MeshShape(data=1, fsdp=run.mesh.fsdp, model=run.mesh.model).build(devices=here)
    program = lowering.lower(run.model, run.optimizer, run.tasks, run.tasks.assumed_drawing(), run.training, mesh=mesh)
    memory = program.compile().memory_analysis()
    assert memory is not None, "every backend that is supported here gives an account"
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes
