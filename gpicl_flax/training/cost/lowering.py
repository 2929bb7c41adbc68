"""Lowers the program of a dispatch from shapes alone, for its costs, or for devices that are not here."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import partitioning
from gpicl_flax.training.device_data import DeviceData
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import abstract_state, shardings_of
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches


@dataclasses.dataclass(frozen=True)
class DatasetShape:
    """The shape of a base dataset's training split.

    Attributes:
      number: the number of examples.
      dtype: uint8 for images, float32 for features.
      on_device: whether they are in device memory. If not, the batches contain them.
    """

    number: int = 60_000
    dtype: str = "uint8"
    on_device: bool = True


def lower(*arguments, **settings) -> jax.stages.Lowered:
    """Lowers the training steps that `trace` traces."""
    return trace(*arguments, **settings).lower()


def trace(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    projection: ProjectionSpec,
    training: Training,
    *,
    mesh: jax.sharding.Mesh,
    num_members: int = 1,
    examples: DatasetShape | None = None,
) -> jax.stages.Traced:
    """Traces the training steps of a stack. By default its base dataset is on the devices.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    examples = examples or DatasetShape()

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
        shape(jnp.float32, (num_members,), "member"),
        states.params if training.telemetry else None,
    )
    coordinates = jax.tree.map(lambda x: shape(x.dtype, x.shape), projection.coordinates(projection.basis_shape))
    stored = int(np.prod(projection.basis_shape))
    rows = (training.steps_per_dispatch, num_members, tasks.task_batch_size)
    positions = (*rows, tasks.sequence_length)

    def batch_of(dtype, dimensions):
        return shape(dtype, dimensions, None, "member", partitioning.BATCH)

    batch = {"task_ids": batch_of(jnp.uint32, rows)}
    if examples.on_device:
        images: Any = jax.ShapeDtypeStruct(
            (examples.number, stored), examples.dtype, sharding=partitioning.row_major(mesh)
        )
        split = images, shape(jnp.int32, (examples.number,))
        batch |= {"example_indices": batch_of(jnp.int32, positions)}
    else:
        split = None
        batch |= {
            "inputs": batch_of(examples.dtype, (*positions, stored)),
            "labels": batch_of(jnp.int32, positions),
        }
    data = DeviceData(split, shape(jnp.float32, ()), shape(jnp.float32, ()), coordinates)
    with jax.set_mesh(mesh):
        train_steps: Any = make_train_steps(  # Any, because the types of jit lack the method `trace`
            model,
            optimizer,
            TaskBatches(tasks, projection, mesh, num_members=num_members),
            accumulation=training.accumulation,
            curriculum=training.curriculum,
        )
        return train_steps.trace(states, run_inputs, data, batch)
