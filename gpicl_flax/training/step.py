"""The training step: tasks made on the device, loss, gradient, update; many of them in one dispatch."""

import functools
from collections.abc import Callable

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
from gpicl_flax.training import partitioning
from gpicl_flax.training.placement import Placed

Metrics = dict[str, jax.Array]


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


def init_state(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    *,
    seed: int,
    mesh: jax.sharding.Mesh,
    abstract: bool = False,
) -> TrainState:
    """A fresh state, created where it belongs on the mesh; or, if abstract, only its shapes and shardings.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """

    def init(seed) -> TrainState:
        shape = (1, tasks.sequence_length)
        inputs, labels = jnp.zeros((*shape, tasks.num_features)), jnp.zeros(shape, jnp.int32)
        params = model.init(keys.parameters(seed), inputs, labels).get("params", {})
        return TrainState(jnp.int32(0), params, optimizer.init(params), jnp.float32(0))

    seed = np.uint32(seed)
    shapes = jax.eval_shape(init, seed)
    shardings = partitioning.state_shardings(mesh, shapes)
    if abstract:
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(shapes), shardings
        )
    return jax.jit(lambda seed: nn.unbox(init(seed)), out_shardings=shardings)(seed)


def make_train_steps(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    form: ProjectionForm,
    *,
    mesh: jax.sharding.Mesh,
    shardings: TrainState,
    accumulation: int = 1,
) -> Callable[[TrainState, np.uint32, Placed, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """A jitted function that makes as many steps as its batch holds, and donates the state it is given.

    Args:
      shardings: of the state, which keeps them.
      accumulation: parts that the batch is split into; their gradients are averaged before the update.

    Returns:
      (state, seed, placed, batch) -> (state, metrics): batch holds S steps as the loader gives them, task_ids [S, B]
      and the indices or examples of their sequences; metrics are arrays [S]. The seed is an argument, so runs that differ in it have the same program, which
      JAX's compilation cache compiles once.
    """

    def loss_fn(params, data, batch):
        seed, placed = data
        inputs, labels = augmentation.make_sequences(
            keys.tasks(seed),
            batch["task_ids"],
            placed.examples(batch),
            form,
            num_classes=tasks.num_classes,
            permute_labels_prob=tasks.permute_labels_prob,
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

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(shardings, None))
    def train_steps(state, seed, placed, batch):
        return jax.lax.scan(functools.partial(train_step, (seed, placed)), state, batch)

    return train_steps
