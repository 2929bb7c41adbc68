"""The states of a stack's members: how they begin, and how they are stacked and unstacked.

A stack is a number of runs whose programs have the same shape, its members, side by side. Their states, numbers and
batches have a leading axis S. A single run is a stack of one.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from gpicl_flax.models import SequenceModel, abstract_parameters
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.families.family import TaskFamily
from gpicl_flax.training import optimizers, partitioning


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. step: steps made; loss_ema: the average that determines the plateau."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    loss_ema: jax.Array


def abstract_state(
    model: SequenceModel, optimizer: optax.GradientTransformation, tasks: TaskFamily, *, mesh: jax.sharding.Mesh
) -> TrainState:
    """Returns the shapes and shardings of the state of one run.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    optimizer = optimizers.inject(optimizer)
    params = abstract_parameters(model, tasks.num_features, tasks.sequence_length)
    shapes = jax.eval_shape(functools.partial(_state, optimizer, numbers={}), params)
    shardings = partitioning.state_shardings(mesh, shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(shapes), shardings)


def bytes_on_a_device(state: TrainState) -> int:
    """Returns how many bytes of a state, such as `abstract_state` returns, each device holds."""
    arrays = jax.tree.leaves(state)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays)


def init_states(
    model: SequenceModel,
    members: Sequence[optax.GradientTransformation],
    tasks: TaskFamily,
    *,
    seeds: Sequence[int],
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """Returns fresh states [S, ...] of a stack, created in place on the mesh.

    Args:
      members: the optimiser of each; they differ in their hyperparameters only.
      seeds: those of each member's parameters.
    """
    numbers = [optimizers.hyperparameters(optimizer) for optimizer in members]
    arguments = np.array(seeds, np.uint32), jax.tree.map(lambda *x: np.stack(x), *numbers)
    optimizer = optimizers.inject(members[0])

    def init(seed, numbers) -> TrainState:
        return nn.unbox(_init(model, optimizer, tasks, seed, numbers))

    shardings = partitioning.stacked(shardings_of(abstract_state(model, members[0], tasks, mesh=mesh)))
    return jax.jit(vmap_members(init, len(seeds), in_axes=(0, 0)), out_shardings=shardings)(*arguments)


def _init(model, optimizer, tasks: TaskFamily, seed, numbers: dict[str, jax.Array]) -> TrainState:
    """Returns the state of one run, in flax's boxes, with the hyperparameters `numbers` if there are any."""
    shape = (1, tasks.sequence_length)
    inputs, labels = jnp.zeros((*shape, tasks.num_features)), jnp.zeros(shape, jnp.int32)
    return _state(optimizer, model.init(keys.init_key(seed), inputs, labels).get("params", {}), numbers)


def _state(optimizer, params, numbers: dict[str, jax.Array]) -> TrainState:
    opt_state = optimizers.with_hyperparameters(optimizer.init(params), numbers)
    return TrainState(jnp.int32(0), params, opt_state, jnp.float32(0))


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """Returns the states [S, ...] of a stack, given those of its members."""
    shardings = partitioning.stacked(shardings_of(states[0]))
    return jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states), out_shardings=shardings)(*states)


def member_state(states: TrainState, index: int, like: TrainState) -> TrainState:
    """Returns the state of one member, a copy with the shardings of `like`."""
    shardings, structure = jax.tree.flatten(shardings_of(like))
    return _take_member(structure, tuple(shardings))(states, np.int32(index))


@functools.lru_cache(maxsize=4)
def _take_member(structure, shardings):
    def take(states, index):
        return jax.tree.map(lambda x: x[index], states)

    return jax.jit(take, out_shardings=jax.tree.unflatten(structure, shardings))


def shardings_of[Tree](tree: Tree) -> Tree:
    """Returns the sharding of each array, in place of the array."""
    return jax.tree.map(lambda x: x.sharding, tree)


def vmap_members(function: Callable, num_members: int, in_axes: tuple, out_axes: int | tuple[int, ...] = 0) -> Callable:
    """Maps `function` over the members of a stack.

    A single member is not mapped, because an axis of size 1 could change its program.
    """
    if num_members > 1:
        return jax.vmap(function, in_axes, out_axes, spmd_axis_name="member")

    @functools.wraps(function)
    def alone(*arguments):
        taken = (
            x if axis is None else jax.tree.map(lambda leaf, axis=axis: jnp.squeeze(leaf, axis), x)
            for x, axis in zip(arguments, in_axes, strict=True)
        )
        expand = functools.partial(jax.tree.map, lambda axis, x: jax.tree.map(lambda y: jnp.expand_dims(y, axis), x))
        return expand(out_axes, function(*taken))

    return alone
