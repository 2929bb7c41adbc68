"""The coordinate check of Yang et al. (2022, arXiv 2203.03466, Section D.1): how large activations are in first steps.

If the sizes of activations, and their changes since the start, do not depend on the width, the parametrisation fits.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpicl_flax.models import SequenceModel
from gpicl_flax.models.backbone import Block
from gpicl_flax.models.layers import Linear
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.probes import fixed_batch
from gpicl_flax.training.state import init_states, vmap_members
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches

_SEQUENCES = 16  # on which activations are measured
_CALL = "__call__"
PREDICTIONS = "predictions"


class Sizes(NamedTuple):
    """How large the activations of each layer are, arrays [S] by layer.

    Attributes:
      size: the root of the mean square.
      change: the same of the difference to the activations before the first step.
    """

    size: dict[str, np.ndarray]
    change: dict[str, np.ndarray]


def record(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    task_batches: TaskBatches,
    dataset: TaskData,
    *,
    seeds: Sequence[int],
    at_steps: Sequence[int],
) -> dict[int, Sizes]:
    """Trains a stack of runs that differ in their seeds for a few steps, on a mesh that is set.

    Args:
      model, optimizer: those of all.
      task_batches: their batches, for as many members as there are seeds.
      dataset: the data that tasks are made from.
      seeds: those of the parameters, tasks and data.
      at_steps: the numbers of steps after which activations are measured, on a fixed batch of unseen tasks.

    Returns:
      The sizes after each of these.
    """
    mesh, tasks = task_batches.mesh, task_batches.tasks
    numbers = jax.tree.map(lambda x: np.full(len(seeds), x, np.float32), tasks.numbers())
    run_inputs = partitioning.shard_members(mesh, PerRunInputs(np.array(seeds, np.uint32), numbers))
    states = init_states(model, [optimizer] * len(seeds), tasks, seeds=seeds, mesh=mesh)
    train_steps = make_train_steps(model, optimizer, task_batches)
    train = task_batches.put_on_mesh(dataset, dataset.train)
    activations = _activations(model, task_batches, train, seeds, run_inputs)
    start, found = activations(states.params), {}
    streams = [Stream(tasks, seed) for seed in seeds]
    drawn = TrainingBatches(
        streams,
        train.split,
        gather=not train.on_device,
        local_members=partitioning.local_members(mesh, len(seeds)),
        local_rows=partitioning.local_rows(mesh, tasks.task_batch_size),
    )
    with contextlib.closing(drawn) as batches:
        for step in range(1, max(at_steps) + 1):
            batch = partitioning.shard_stacked_batches(mesh, next(batches))
            states, _, _ = train_steps(states, run_inputs, train.data, batch)
            if step in at_steps:
                found[step] = _sizes(activations(states.params), start)
    return found


def _activations(
    model: SequenceModel,
    task_batches: TaskBatches,
    train: SplitOnMesh,
    seeds: Sequence[int],
    run_inputs: PerRunInputs,
) -> Any:
    """Returns a function of parameters [S, ...] that returns the activations [S, ...] of each layer."""
    tasks = task_batches.tasks
    count, sampler = fixed_batch.num_rows(task_batches, _SEQUENCES), tasks.sampler(train.split)
    drawn = [sampler(np.random.default_rng(seed), count, tasks.sequence_length) for seed in seeds]
    rows = [{"task_ids": tasks.unseen_task_ids(count)} | own for own in drawn]
    on_mesh = fixed_batch.put_on_mesh(task_batches, train, rows)

    def activations(params, run_inputs, data, batch):
        batch = jax.tree.map(lambda x: x[0], batch)  # of the only step
        numbers = tasks.unseen_numbers(run_inputs.numbers)
        sequences = task_batches.make_sequences(run_inputs.seed, batch, data, numbers)
        shown = sequences.shown_targets(sequences.targets)
        _, kept = model.apply(
            {"params": params}, sequences.inputs, shown, capture_intermediates=_is_layer, mutable=["intermediates"]
        )
        return _by_layer(kept["intermediates"])

    program = jax.jit(vmap_members(activations, len(seeds), in_axes=(0, 0, None, 1)))
    return lambda params: program(params, run_inputs, train.data, on_mesh)


def _is_layer(module: Any, method: str) -> bool:
    """Returns whether the outputs of a module are recorded: a linear layer, a block, or the whole model."""
    return method == _CALL and isinstance(module, Linear | Block | SequenceModel)


def _by_layer(kept: Any) -> dict[str, jax.Array]:
    """Returns the activations of each layer, as float32, from the collection `intermediates`.

    A block has its residual stream, a recurrent model also what it keeps under a name of its own.
    """
    found = {}
    for path, recorded in jax.tree_util.tree_leaves_with_path(kept, is_leaf=lambda x: isinstance(x, tuple)):
        names = [entry.key for entry in path if entry.key != _CALL]
        found["/".join(names) or PREDICTIONS] = jax.tree.leaves(recorded)[0].astype(jnp.float32)
    if "logits" in found:
        del found[PREDICTIONS]
    return found


@jax.jit
def _root_mean_square(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda y: jnp.sqrt(jnp.mean(y**2, axis=range(1, y.ndim))), x)


@jax.jit
def _difference(x: dict[str, jax.Array], y: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.subtract, x, y)


def _sizes(now: dict[str, jax.Array], start: dict[str, jax.Array]) -> Sizes:
    return Sizes(*jax.device_get((_root_mean_square(now), _root_mean_square(_difference(now, start)))))
