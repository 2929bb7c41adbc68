"""Which points of a sweep train together, as the members of a stack: those whose programs differ in numbers alone."""

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

# From a run and a number of runs like it to the sizes of the stacks that these form.
Sizes = Callable[[Run, int], list[int]]

# What a member may have of its own. A momentum is not among them: without one, the state has no place for it.
_OWN = ("Run.seed", "TaskDistribution.num_tasks", "TaskDistribution.permute_labels_prob")
_OWN_OF_THE_OPTIMIZER = ("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay", "decay", "clip_norm")

_LARGEST = 32  # members a device: beyond that, a device is busy
_SHARE = 0.8  # of the free memory, what the members of a stack may take


def plan(points: Sequence[Point], runs: Sequence[Run], sizes: Sizes) -> list[list[int]]:
    """Divides points into stacks, in the order of their first members.

    Two points share a stack if their configurations differ in nothing but the seed, the number of tasks (both bounded), the
    bias p, and numbers of the optimiser that `Run.optimizer` names, which must be one of `training.optimizers` and
    mentioned nowhere else. A run of 0 steps is alone.

    Args:
      runs: the resolved settings of the points.
      sizes: `at_most`, or `largest`.

    Returns:
      For each stack the indices of its points.
    """
    stacks = []
    for group in groups(points, runs):
        start = 0
        for size in sizes(runs[group[0]], len(group)) if len(group) > 1 else [1]:
            stacks.append(group[start : start + size])
            start += size
    return sorted(stacks)


def groups(points: Sequence[Point], runs: Sequence[Run]) -> list[list[int]]:
    """The indices of points that could share a stack, in the order of their first."""
    found: dict[str, list[int]] = {}
    for index, (point, run) in enumerate(zip(points, runs, strict=True)):
        found.setdefault(shape(point.config, run) if run.training.steps else point.run_id, []).append(index)
    return list(found.values())


def shape(config: Config, run: Run) -> str:
    """What members of a stack have in common, as text."""
    bindings = config.bindings
    own = {LABELS, *(key for key in _OWN if _is_number(bindings.get(key)))}
    scope, _, name = str(bindings.get("Run.optimizer", Reference("@adam()"))).strip("@()").rpartition("/")
    last = name.rpartition(".")[2]  # gin also takes module.name
    elsewhere = any(f"{last}()" in str(value) for key, value in bindings.items() if key != "Run.optimizer")
    if isinstance(run.optimizer, optimizers.Optimizer) and not elsewhere:
        keys = (f"{prefix}{name}.{argument}" for prefix in {"", f"{scope}/"} for argument in _OWN_OF_THE_OPTIMIZER)
        own |= {key for key in keys if _is_number(bindings.get(key))}
    return f"{optimizers.structure(run.optimizer)}\n{config.without(*own).text}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_most(size: int) -> Sizes:
    """Stacks of `size` runs, and one of those that are left."""
    return lambda run, count: [min(size, count - start) for start in range(0, count, size)]


def largest(run: Run, count: int) -> list[int]:
    """Stacks as large as fit the memory of the devices here and keep them busy, in sizes that divide over them.

    On CPU all are alone: a single run keeps the cores busy.
    """
    if jax.local_devices()[0].platform == "cpu":
        return [1] * count
    devices = jax.device_count() // (max(run.mesh.data, 1) * run.mesh.fsdp * run.mesh.model)
    fit = int(_SHARE * free_device_memory() / _bytes_of_a_member(run))
    fit = -distributed.max_over_processes(-fit, "how many members fit")  # on the host where the fewest do
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
    """What the training steps of one run take on a device that it has to itself, by the compiler's account."""
    here = [device for device in jax.devices() if device.process_index == jax.process_index()]
    mesh = MeshShape(data=1, fsdp=run.mesh.fsdp, model=run.mesh.model).build(devices=here)
    projection = run.tasks.projection_spec(run.tasks.input_shape)
    program = lowering.lower(run.model, run.optimizer, run.tasks, projection, run.training, mesh=mesh)
    memory = program.compile().memory_analysis()
    assert memory is not None, "every backend that is supported here gives an account"
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes
