"""Lowers the program of a dispatch from shapes alone, for its costs, or for devices that are not here."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.families.family import TaskFamily
from gpicl_flax.training import partitioning
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import abstract_state, shardings_of
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches


def lower(*arguments, **settings) -> jax.stages.Lowered:
    """Lowers the training steps that `trace` traces."""
    return trace(*arguments, **settings).lower()


def trace(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskFamily,
    drawing: Hashable,
    training: Training,
    *,
    mesh: jax.sharding.Mesh,
    num_members: int = 1,
    on_device: bool = True,
) -> jax.stages.Traced:
    """Traces the training steps of a stack, whose examples are on the devices or in its batches.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """

    def shape(dtype, dimensions, *spec) -> Any:  # stands for an array, so that nothing is allocated
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    state = abstract_state(model, optimizer, tasks, mesh=mesh)
    states = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct((num_members, *x.shape), x.dtype, sharding=sharding),
        state,
        partitioning.stacked(shardings_of(state)),
    )
    run_inputs = PerRunInputs(
        shape(jnp.uint32, (num_members,), "member"),
        jax.tree.map(lambda _: shape(jnp.float32, (num_members,), "member"), tasks.numbers()),
        states.params if training.telemetry else None,
    )

    def rows_of(dtype, dimensions):
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=partitioning.row_major(mesh))

    data, entries = tasks.abstract_batch(drawing, on_device, shape, rows_of)
    rows = (training.steps_per_dispatch, num_members, tasks.task_batch_size)
    batch = {
        name: shape(dtype, (*rows, *own), None, "member", partitioning.BATCH)
        for name, (dtype, own) in {"task_ids": (jnp.uint32, ()), **entries}.items()
    }
    with jax.set_mesh(mesh):
        train_steps: Any = make_train_steps(  # Any, because the types of jit lack the method `trace`
            model,
            optimizer,
            TaskBatches(tasks, drawing, mesh, num_members=num_members),
            accumulation=training.accumulation,
            curriculum=training.curriculum,
        )
        return train_steps.trace(states, run_inputs, data, batch)
