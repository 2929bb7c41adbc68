"""The device mesh, and the one place that says how arrays are laid out on it."""

import dataclasses
import math
from collections.abc import Sequence

import gin
import jax
import numpy as np
from flax import linen as nn
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.errors import UsageError, check_types

# Logical axis of a parameter -> mesh axis; axes that are not named here are replicated.
RULES = (("heads", "model"), ("mlp", "model"), ("gates", "model"))


@gin.configurable
@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How many devices lie along each mesh axis.

    Attributes:
      data: devices that share the sequences of a batch; -1: all that `model` and the members of a stack leave.
      model: devices that share the parameters (attention heads, MLP and gate dimensions).

    The axis `member` has no number of its own: members of a stack are spread over as many devices as they divide over,
    since they have nothing to say to each other.
    """

    data: int = -1
    model: int = 1

    def __post_init__(self):
        check_types(self, data=int, model=int)

    def build(self, num_members: int = 1, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        """The mesh, over all devices or, where the shape asks for fewer, over the first ones.

        Args:
          num_members: runs of a stack.
          devices: those that there are; None: of this machine or slice.

        Raises:
          UsageError: the shape does not fit the devices that there are.
        """
        devices = jax.devices() if devices is None else devices
        available, processes = len(devices), len({device.process_index for device in devices})
        data = 1 if self.data == -1 else self.data
        if data < 1 or self.model < 1 or data * self.model > available:
            raise UsageError(
                f"MeshShape.data = {self.data} and MeshShape.model = {self.model} do not fit {available} device(s)"
            )
        # A process reads the sequences of its own devices, and those of every member.
        member = math.gcd(num_members, available // (data * self.model)) if processes == 1 else 1
        data = available // (member * self.model) if self.data == -1 else data
        shape = (member, data, self.model)
        try:
            return jax.make_mesh(
                shape,
                ("member", "data", "model"),
                axis_types=(jax.sharding.AxisType.Auto,) * 3,  # linen's logical constraints need it
                devices=devices[: math.prod(shape)],
            )
        except (AssertionError, NotImplementedError, ValueError) as error:  # of chips that lie in no rectangle, say
            raise UsageError(
                f"MeshShape.data = {self.data} and MeshShape.model = {self.model}: JAX makes no mesh of {math.prod(shape)} of "
                f"the {available} devices; choose numbers that divide them"
            ) from error


def state_shardings(mesh: jax.sharding.Mesh, abstract_state):
    """The shardings of a (boxed) abstract train state, by RULES.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract_state), mesh, RULES)
    arrays, layouts = jax.tree.leaves(nn.unbox(abstract_state)), jax.tree.leaves(shardings)
    for array, layout in zip(arrays, layouts, strict=True):
        try:
            layout.shard_shape(array.shape)
        except ValueError as error:
            raise UsageError(
                f"a parameter of shape {list(array.shape)} does not divide over the mesh {dict(mesh.shape)} as "
                f"{layout.spec}; choose another MeshShape.model"
            ) from error
    return shardings


def replicate(mesh: jax.sharding.Mesh, tree):
    """Places host arrays, equal on all processes, whole on every device of the mesh."""
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec()), np.asarray(x)), tree)


def whole_rows(mesh: jax.sharding.Mesh) -> Format:
    """Where a matrix whose rows are gathered lies: whole on every device, with a row in one piece.

    By default a TPU stores the axis in one piece that wastes less on padding; every program would first transpose it.
    """
    return Format(Layout(major_to_minor=(0, 1)), NamedSharding(mesh, PartitionSpec()))


def shard_batch(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [B, ...], each process holding its own rows, along the mesh axis `data`."""
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec("data")), x), tree)


def shard_stacked_batches(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [steps, S, B, ...], each process holding its own rows, along `member` and `data`."""
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec(None, "member", "data")), x), tree)


def stacked(shardings):
    """The shardings of a state with an axis of members in front, from those of a single one."""
    return jax.tree.map(lambda x: NamedSharding(x.mesh, PartitionSpec("member", *x.spec)), shardings)


def shard_members(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [S, ...], equal on all processes, along the mesh axis `member`."""
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec("member")), np.asarray(x)), tree)


def constrain_replicated(mesh: jax.sharding.Mesh, tree):
    """Inside jit: makes every array whole on every device, so that every process can read it."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def constrain_batch(mesh: jax.sharding.Mesh, tree):
    """Inside jit: keeps the leading axis of every array along the mesh axis `data`."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec("data")))


def _place(sharding: NamedSharding, x: np.ndarray) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, x)
