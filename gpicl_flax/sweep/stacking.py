"""Which points of a sweep train together, as the members of a stack: those whose programs differ in numbers alone."""

from collections.abc import Callable, Sequence

import jax

from gpicl_flax.config import Reference
from gpicl_flax.run import Run
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training import ahead
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.placement import free_device_memory

# What a member may have of its own. A momentum is not among them: without one, the state has no place for it.
_OWN = ("Run.seed", "TaskDistribution.num_tasks", "TaskDistribution.permute_labels_prob")
_OWN_OF_THE_OPTIMIZER = ("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay", "decay", "clip_norm")

_LARGEST = 32  # members a device: beyond that, a device is busy
_SHARE = 0.8  # of the free memory, what the members of a stack may take


def plan(points: Sequence[Point], runs: Sequence[Run], size: Callable[[Run], int]) -> list[list[int]]:
    """Divides points into stacks, in the order of their first members.

    Two points share a stack if their configurations differ in nothing but the seed, the number of tasks (both bounded), the
    bias p, and numbers of the optimiser that `Run.optimizer` names. A run of 0 steps is alone.

    Args:
      runs: the resolved settings of the points.
      size: how many members a stack of runs like this one may have.

    Returns:
      For each stack the indices of its points.
    """
    groups: dict[str, list[int]] = {}
    for index, (point, run) in enumerate(zip(points, runs, strict=True)):
        key = _shape(point) if run.training.steps else point.run_id
        groups.setdefault(key, []).append(index)
    stacks = []
    for group in groups.values():
        at_once = size(runs[group[0]]) if len(group) > 1 else 1
        number = -(-len(group) // at_once)
        # As even as possible: 9 members in stacks of at most 8 are 5 and 4.
        stacks += [group[i * len(group) // number : (i + 1) * len(group) // number] for i in range(number)]
    return sorted(stacks)


def _shape(point: Point) -> str:
    """What members of a stack have in common, as text."""
    bindings = point.config.bindings
    own = {key for key in _OWN if _is_number(bindings.get(key))}
    scope, _, name = str(bindings.get("Run.optimizer", Reference("@adam()"))).strip("@()").rpartition("/")
    elsewhere = any(f"{name}()" in str(value) for key, value in bindings.items() if key != "Run.optimizer")
    for prefix in ([f"{scope}/{name}"] if scope else []) + ([] if elsewhere else [name]):
        keys = (f"{prefix}.{argument}" for argument in _OWN_OF_THE_OPTIMIZER)
        own |= {key for key in keys if _is_number(bindings.get(key))}
    return point.config.without(*own).text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def largest(run: Run) -> int:
    """How many members like `run` a stack can have here: as many as fit the memory of the devices, and keep them busy.

    On CPU it is 1: two cores are as busy with one run as with several.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return 1
    groups = max(1, jax.device_count() // run.mesh.model)
    return groups * max(1, min(_LARGEST, int(_SHARE * free_device_memory() / _bytes_of_a_member(run))))


def _bytes_of_a_member(run: Run) -> int:
    """What the training steps of one run take on a device that it has to itself, by the compiler's account."""
    mesh = MeshShape(data=1, model=run.mesh.model).build()
    form = run.tasks.projection_form(run.tasks.input_shape)
    memory = ahead.lower(run.model, run.optimizer, run.tasks, form, run.training, mesh=mesh).compile().memory_analysis()
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes
