"""The program of a dispatch, lowered from shapes alone: for its costs, or for devices that are not here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.projections import ProjectionForm
from gpicl_flax.training import partitioning
from gpicl_flax.training.loop import Training
from gpicl_flax.training.placement import Placed
from gpicl_flax.training.state import abstract_state, shardings_of
from gpicl_flax.training.step import Knobs, make_train_steps


def lower(
    model: SequenceModel,
    optimizer: optax.GradientTransformation,
    tasks: TaskDistribution,
    form: ProjectionForm,
    training: Training,
    *,
    mesh: jax.sharding.Mesh,
    num_members: int = 1,
    num_examples: int = 60_000,
) -> jax.stages.Lowered:
    """Lowers the training steps of a stack whose base dataset, of `num_examples` examples, lies on the devices."""

    def shape(dtype, dimensions, *spec):
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    state = abstract_state(model, optimizer, tasks, mesh=mesh)
    states = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct((num_members, *x.shape), x.dtype, sharding=sharding),
        state,
        partitioning.stacked(shardings_of(state)),
    )
    knobs = Knobs(shape(jnp.uint32, (num_members,), "member"), shape(jnp.float32, (num_members,), "member"))
    coordinates = jax.tree.map(lambda x: shape(x.dtype, x.shape), form.coordinates(form.basis_shape))
    stored = int(np.prod(form.basis_shape))
    images = jax.ShapeDtypeStruct((num_examples, stored), jnp.uint8, sharding=partitioning.whole_rows(mesh))
    split = images, shape(jnp.int32, (num_examples,))
    placed = Placed(split, shape(jnp.float32, ()), shape(jnp.float32, ()), coordinates)
    rows = (training.steps_per_dispatch, num_members, tasks.task_batch_size)
    batch = {
        "task_ids": shape(jnp.uint32, rows, None, "member", partitioning.BATCH),
        "example_indices": shape(jnp.int32, (*rows, tasks.sequence_length), None, "member", partitioning.BATCH),
    }
    with jax.set_mesh(mesh):
        train_steps = make_train_steps(
            model,
            optimizer,
            tasks,
            form,
            mesh=mesh,
            num_members=num_members,
            accumulation=training.accumulation,
            curriculum=training.curriculum,
        )
        return train_steps.lower(states, knobs, placed, batch)
