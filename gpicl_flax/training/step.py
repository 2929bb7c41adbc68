"""The training step: tasks made on the device, loss, gradient, update; many of them in one dispatch.

It trains a stack: runs with programs of the same shape, its members, side by side. Their states, numbers and batches have
an axis S in front. A single run is a stack of one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from gpicl_flax.models import SequenceModel
from gpicl_flax.records import plateau
from gpicl_flax.tasks import augmentation, keys
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.projections import ProjectionForm
from gpicl_flax.training import optimizers, partitioning
from gpicl_flax.training.placement import Placed

Metrics = dict[str, jax.Array]


# Of a device's memory, what the projections of a step may take. On CPU a small part is faster: fresh memory is not free.
PROJECTION_BYTES = {"cpu": 2**24, "gpu": 2**30, "tpu": 2**30}


class Knobs(NamedTuple):
    """What members may differ in, besides their batches and the hyperparameters in their states.

    Attributes:
      seed: [S] uint32, of their tasks.
      permute_labels_prob: [S] float32.
    """

    seed: np.ndarray | jax.Array
    permute_labels_prob: np.ndarray | jax.Array


class TrainState(flax.struct.PyTreeNode):
    """Everything a step changes. step: steps made; loss_ema: the average that the plateau is judged by."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    loss_ema: jax.Array


def sequence_losses(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """logits [B, T, C] and labels [B, T] -> cross entropy in nats [B, T] and whether the prediction is right [B, T]."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, jnp.argmax(logits, axis=-1) == labels


def abstract_state(
    model: SequenceModel, optimizer: optax.GradientTransformation, tasks: TaskDistribution, *, mesh: jax.sharding.Mesh
) -> TrainState:
    """The shapes and shardings of the state of one run.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    optimizer = optimizers.inject(optimizer)
    shapes = jax.eval_shape(functools.partial(_init, model, optimizer, tasks), np.uint32(0), {})
    shardings = partitioning.state_shardings(mesh, shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(shapes), shardings)


def init_states(
    model: SequenceModel,
    members: Sequence[optax.GradientTransformation],
    tasks: TaskDistribution,
    *,
    seeds: Sequence[int],
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """The fresh states [S, ...] of a stack, created where they belong on the mesh.

    Args:
      members: the optimiser of each; they differ in their hyperparameters only.
      seeds: of each one's parameters.
    """
    injected = [optimizers.inject(optimizer) for optimizer in members]
    numbers = [optimizers.hyperparameters(optimizer.init(np.float32(0))) for optimizer in injected]
    arguments = np.array(seeds, np.uint32), jax.tree.map(lambda *x: np.stack(x), *numbers)

    def init(seed, numbers) -> TrainState:
        return nn.unbox(_init(model, injected[0], tasks, seed, numbers))

    shardings = partitioning.stacked(_shardings(abstract_state(model, members[0], tasks, mesh=mesh)))
    return jax.jit(_over_members(init, len(seeds), in_axes=(0, 0)), out_shardings=shardings)(*arguments)


def _init(model, optimizer, tasks: TaskDistribution, seed, numbers: dict[str, jax.Array]) -> TrainState:
    """The state of one run, in flax's boxes, with other hyperparameters than the optimiser's own if there are any."""
    shape = (1, tasks.sequence_length)
    inputs, labels = jnp.zeros((*shape, tasks.num_features)), jnp.zeros(shape, jnp.int32)
    params = model.init(keys.parameters(seed), inputs, labels).get("params", {})
    opt_state = optimizers.with_hyperparameters(optimizer.init(params), numbers)
    return TrainState(jnp.int32(0), params, opt_state, jnp.float32(0))


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states [S, ...] of a stack from those of its members."""
    shardings = partitioning.stacked(_shardings(states[0]))
    return jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states), out_shardings=shardings)(*states)


def member_state(states: TrainState, index: int, like: TrainState) -> TrainState:
    """The state of one member, a copy with the shardings of `like`."""
    shardings, structure = jax.tree.flatten(_shardings(like))
    return _take_member(structure, tuple(shardings))(states, np.int32(index))


@functools.lru_cache(maxsize=4)
def _take_member(structure, shardings):
    def take(states, index):
        return jax.tree.map(lambda x: x[index], states)

    return jax.jit(take, out_shardings=jax.tree.unflatten(structure, shardings))


def _shardings(state: TrainState) -> TrainState:
    return jax.tree.map(lambda x: x.sharding, state)


def _over_members(function: Callable, num_members: int, in_axes: tuple, out_axes=0) -> Callable:
    """`function` of one member for all; for a single one without an axis of size 1, which could change its program."""
    if num_members > 1:
        return jax.vmap(function, in_axes, out_axes, spmd_axis_name="member")

    def alone(*arguments):
        taken = (
            x if axis is None else jax.tree.map(lambda leaf, axis=axis: jnp.squeeze(leaf, axis), x)
            for x, axis in zip(arguments, in_axes, strict=True)
        )
        expand = functools.partial(jax.tree.map, lambda axis, x: jax.tree.map(lambda y: jnp.expand_dims(y, axis), x))
        return expand(out_axes, function(*taken))

    return alone


def make_train_steps(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    form: ProjectionForm,
    *,
    mesh: jax.sharding.Mesh,
    num_members: int = 1,
    accumulation: int = 1,
) -> Callable[[TrainState, Knobs, Placed, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """A jitted function that makes as many steps as its batch holds, and donates the states it is given.

    Args:
      optimizer: of any member; its hyperparameters are read from the states.
      tasks: of any member; its number of tasks and its bias are not used.
      accumulation: parts that the batch is split into; their gradients are averaged before the update.

    Returns:
      (states, knobs, placed, batch) -> (states, metrics): batch holds the steps as the loader gives them, task_ids
      [steps, S, B] and the indices or examples of their sequences; metrics are arrays [steps, S]. All that members
      differ in is an argument, so that runs that differ in nothing else have the same program, which JAX's compilation
      cache compiles once.
    """
    optimizer = optimizers.inject(optimizer)
    per_device = num_members // mesh.shape["member"]
    memory = PROJECTION_BYTES.get(mesh.devices.flat[0].platform, 2**28) // per_device

    def loss_fn(params, data, batch):
        knobs, placed = data
        inputs, labels = augmentation.make_sequences(
            keys.tasks(knobs.seed),
            batch["task_ids"],
            placed.examples(batch),
            form,
            num_classes=tasks.num_classes,
            permute_labels_prob=knobs.permute_labels_prob,
            memory=memory,
            num_shards=mesh.shape["data"],
        )
        inputs, labels = partitioning.constrain_batch(mesh, (inputs, labels))
        losses, correct = sequence_losses(model.apply({"params": params}, inputs, labels), labels)
        metrics = {
            "loss": losses.mean(),
            "loss_last": losses[:, -1].mean(),
            "accuracy": correct.mean(),
            "accuracy_first": correct[:, 0].mean(),
            "accuracy_last": correct[:, -1].mean(),
        }
        return metrics["loss"], metrics

    gradient = jax.grad(loss_fn, has_aux=True)

    def accumulated_gradient(params, data, batch):
        # Part i takes every accumulation-th row, so that each device works on rows it already holds.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
        shapes = jax.eval_shape(gradient, params, data, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add_part(total, part):
            return jax.tree.map(jnp.add, total, gradient(params, data, part)), None

        total, _ = jax.lax.scan(add_part, zeros, parts)
        return jax.tree.map(lambda x: x / accumulation, total)

    def train_step(data, state: TrainState, batch) -> tuple[TrainState, Metrics]:
        compute = gradient if accumulation == 1 else accumulated_gradient
        grads, metrics = compute(state.params, data, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        weight = 1 / jnp.minimum(state.step + 1, plateau.EMA_STEPS)
        loss_ema = state.loss_ema + weight * (metrics["loss"] - state.loss_ema)
        metrics |= {"loss_ema": loss_ema, "grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        return TrainState(state.step + 1, params, opt_state, loss_ema), metrics

    def train_steps(state, knobs, placed, batch):
        return jax.lax.scan(functools.partial(train_step, (knobs, placed)), state, batch)

    shardings = partitioning.stacked(_shardings(abstract_state(model, optimizer, tasks, mesh=mesh)))
    stacked_steps = _over_members(train_steps, num_members, in_axes=(0, 0, None, 1), out_axes=(0, 1))
    return jax.jit(stacked_steps, donate_argnums=0, out_shardings=(shardings, None))
