"""The training step: tasks made on the device, loss, gradient and update; many steps in one dispatch.

It trains a stack of runs at once (see `state`).
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpicl_flax.models import SequenceModel
from gpicl_flax.records import plateau
from gpicl_flax.training import optimizers, partitioning, positions
from gpicl_flax.training.curriculum import Curriculum
from gpicl_flax.training.probes import telemetry
from gpicl_flax.training.probes.telemetry import GradAndUpdate
from gpicl_flax.training.state import TrainState, abstract_state, shardings_of, vmap_members
from gpicl_flax.training.task_batches import TaskBatches

Metrics = dict[str, jax.Array]


class PerRunInputs(NamedTuple):
    """The inputs that members may differ in, besides their batches and the hyperparameters in their states.

    Attributes:
      seed: [S] uint32, that of their tasks.
      numbers: those of their tasks that programs read, arrays [S], see `TaskFamily.numbers`.
      initial_params: [S, ...], to which telemetry measures distances. None: the program contains no telemetry.
    """

    seed: np.ndarray | jax.Array
    numbers: Any
    initial_params: Any = None


def make_train_steps(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    task_batches: TaskBatches,
    *,
    accumulation: int = 1,
    curriculum: Curriculum | None = None,
) -> jax.stages.Wrapped:
    """Makes a jitted function that takes as many steps as its batch holds, and donates the states it is given.

    Args:
      model: the model of all members.
      optimizer: the optimiser of any member; its hyperparameters are read from the states.
      task_batches: the batches of any member; the `member_settings` of their tasks are not used.
      accumulation: parts that the batch is split into; their gradients are averaged before the update.
      curriculum: the properties of tasks that change with the step; None: nothing.

    Returns:
      (states, run_inputs, data, batch) -> (states, metrics, measured). The batch holds the steps in the form of the
      loader: task_ids [steps, S, B] and the indices, seeds or examples of their sequences. metrics are arrays [steps,
      S]. measured is the telemetry of the last of several steps, arrays [S, ...], or None without telemetry. Everything
      that members differ in is an argument, so that runs that differ in nothing else share one program, which JAX's
      compilation cache compiles once.
    """
    optimizer, curriculum = optimizers.inject(optimizer), curriculum or Curriculum()
    tasks, mesh, num_members = task_batches.tasks, task_batches.mesh, task_batches.num_members

    def loss_fn(params, context, batch) -> tuple[jax.Array, Metrics]:
        run_inputs, data, step = context
        numbers = curriculum.numbers(step, run_inputs.numbers)
        sequences = task_batches.make_sequences(run_inputs.seed, batch, data, numbers)
        targets = curriculum.merge_classes(step, sequences.targets, tasks.targets.num_classes)
        predictions = model.apply({"params": params}, sequences.inputs, sequences.shown_targets(targets))
        measured = tasks.targets.measure(cast(jax.Array, predictions), targets)
        last = curriculum.last_position(step, tasks.sequence_length)
        metrics = positions.summary(measured, sequences.counted, last)
        return metrics["loss"], metrics

    gradient = jax.grad(loss_fn, has_aux=True)

    def accumulated_gradient(params, context, batch):
        # Part i takes every accumulation-th row, so that each device works on rows that it already holds.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
        shapes = jax.eval_shape(gradient, params, context, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add_part(total, part):
            return jax.tree.map(jnp.add, total, gradient(params, context, part)), None

        total, _ = jax.lax.scan(add_part, zeros, parts)
        return jax.tree.map(lambda x: x / accumulation, total)

    def train_step(state: TrainState, context, batch) -> tuple[TrainState, Metrics, GradAndUpdate]:
        compute = gradient if accumulation == 1 else accumulated_gradient
        grads, metrics = compute(state.params, (*context, state.step), batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = cast(dict, optax.apply_updates(state.params, updates))
        weight = 1 / jnp.minimum(state.step + 1, plateau.EMA_STEPS)
        loss_ema = state.loss_ema + weight * (metrics["loss"] - state.loss_ema)
        metrics |= {"loss_ema": loss_ema, "grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        return TrainState(state.step + 1, params, opt_state, loss_ema), metrics, GradAndUpdate(grads, updates)

    def train_steps(state: TrainState, run_inputs: PerRunInputs, data: Any, batches):
        """Takes the steps of one member, one after another."""
        context = run_inputs, data
        if run_inputs.initial_params is None:
            return *jax.lax.scan(lambda state, batch: train_step(state, context, batch)[:2], state, batches), None

        def measured_step(carry, x):
            (state, before), (batch, is_last) = carry, x
            state, metrics, change = train_step(state, context, batch)
            measured = telemetry.measure_if(is_last, before, change, state, run_inputs.initial_params)
            return (state, change), (metrics, measured)

        count = len(jax.tree.leaves(batches)[0])
        start = state, telemetry.zero_grad_and_update(state.params)
        (state, _), (metrics, measured) = jax.lax.scan(measured_step, start, (batches, jnp.arange(count) == count - 1))
        return state, metrics, jax.tree.map(lambda x: x[-1], measured)

    shardings = partitioning.stacked(shardings_of(abstract_state(model, optimizer, tasks, mesh=mesh)))
    stacked_steps = vmap_members(train_steps, num_members, in_axes=(0, 0, None, 1), out_axes=(0, 1, 0))
    # Replicated, because every process reads the metrics and the measurements of all members.
    replicated = partitioning.replicated(mesh)
    return jax.jit(stacked_steps, donate_argnums=0, out_shardings=(shardings, replicated, replicated))
