"""The device mesh, and the layout of all arrays on it. No other module defines layouts."""

import dataclasses
import math
from collections.abc import Sequence

import gin
import jax
import numpy as np
from flax import linen as nn
from flax.linen import spmd
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.bindings.kinds import check_settings
from gpicl_flax.errors import UsageError

# Logical axis of a parameter -> mesh axis; axes that are not named here are replicated. `hidden` is not divided,
# although `fsdp` could divide it. Where a recurrent kernel is laid out along (fsdp, model) and the batch along (data,
# fsdp) of 2x2x2 devices, XLA's partitioner (jax 0.12.0.1, with and without Shardy) computes wrong gradients, by 30% in
# float64. Two products in a row suffice, each split along its last axis, without a scan. The fault is in the
# concatenation, which is the transpose of the split. Gates that were sliced from an array reshaped to [..., 4, h]
# instead came out right.
RULES = (("heads", "model"), ("mlp", "model"), ("gates", "model"), ("embed", "fsdp"))

# The mesh axes that the sequences of a batch are divided over.
BATCH = ("data", "fsdp")


@gin.configurable
@dataclasses.dataclass(frozen=True)
class MeshShape:
    """The number of devices along each mesh axis.

    Attributes:
      data: devices that share the sequences of a batch; -1: all that the other axes and the members of a stack do not
        use.
      fsdp: devices that share the sequences of a batch and also the state: each keeps a part of every parameter and of
        the optimiser's moments, and gathers a parameter when it needs it. This is for models that do not fit on one
        device. Parameters without a logical axis `embed`, such as the recurrent ones of an LSTM, are not divided.
      model: devices that share the parameters and the computations with them (attention heads, MLP and gate
        dimensions).

    The layout of a run changes its results by rounding only, and it may change when the run is resumed elsewhere. The
    axis `member` has no number here: members of a stack are spread over as many devices as they divide over, because
    they do not communicate with each other.
    """

    data: int = -1
    fsdp: int = 1
    model: int = 1

    def __post_init__(self):
        check_settings(self)

    def build(
        self,
        num_members: int = 1,
        devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
    ) -> jax.sharding.Mesh:
        """Returns the mesh, over all devices or, where the shape asks for fewer, over the first ones.

        Args:
          num_members: the number of runs in the stack.
          devices: the available devices; None: those of this machine or slice.

        Raises:
          UsageError: the shape does not fit the available devices.
        """
        devices = jax.devices() if devices is None else devices
        available, state = len(devices), self.fsdp * self.model
        data = 1 if self.data == -1 else self.data
        if min(data, self.fsdp, self.model) < 1 or data * state > available:
            raise UsageError(
                f"MeshShape.data = {self.data}, MeshShape.fsdp = {self.fsdp} and MeshShape.model = {self.model} do not "
                f"fit {available} device(s)"
            )
        member = math.gcd(num_members, available // (data * state))
        data = available // (member * state) if self.data == -1 else data
        shape = {"member": member, "data": data, "fsdp": self.fsdp, "model": self.model}
        used = math.prod(shape.values())
        if used < available and jax.process_count() > 1:
            raise UsageError(
                f"the mesh {shape} leaves {available - used} of {available} devices out, which several hosts cannot; "
                "choose another MeshShape"
            )
        try:
            return jax.make_mesh(
                tuple(shape.values()),
                tuple(shape),
                axis_types=(jax.sharding.AxisType.Auto,) * len(shape),  # required by linen's logical constraints
                devices=devices[:used],
            )
        except (AssertionError, NotImplementedError, ValueError) as error:  # the chips form no rectangle, for example
            raise UsageError(
                f"{self}: JAX makes no mesh of {used} of the {available} devices; choose numbers that divide them"
            ) from error


def batch_shards(mesh: jax.sharding.Mesh) -> int:
    """Returns the number of parts that the sequences of a batch are divided into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def local_rows(mesh: jax.sharding.Mesh, num_rows: int) -> np.ndarray:
    """Returns the indices of the `num_rows` sequences that the devices of this process hold.

    The sequences are divided along the mesh axes of a batch.
    """
    return _own(NamedSharding(mesh, PartitionSpec(BATCH)), num_rows)


def local_members(mesh: jax.sharding.Mesh, num_members: int) -> np.ndarray:
    """Returns the indices of the members of a stack that the devices of this process train."""
    return _own(NamedSharding(mesh, PartitionSpec("member")), num_members)


def _own(sharding: NamedSharding, size: int) -> np.ndarray:
    parts = sharding.addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[part] for part in parts]))


def state_shardings(mesh: jax.sharding.Mesh, abstract_state):
    """Returns the shardings of a (boxed) abstract train state, by RULES.

    Raises:
      UsageError: a parameter does not divide over the mesh.
    """
    shardings = spmd.logical_to_mesh_sharding(nn.get_partition_spec(abstract_state), mesh, RULES)
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
    """Puts host arrays, equal on all processes, on every device of the mesh."""
    return jax.tree.map(lambda x: _place(replicated(mesh), np.asarray(x)), tree)


def row_major(mesh: jax.sharding.Mesh) -> Format:
    """Returns the layout of a matrix whose rows are gathered: replicated, and each row contiguous.

    By default a TPU makes that axis contiguous which needs less padding. Then every program would first transpose it.
    """
    return Format(Layout(major_to_minor=(0, 1)), replicated(mesh))


def shard_batch(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [B, ...], each process holding its `local_rows`, along the mesh axes of a batch."""
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec(BATCH)), x), tree)


def shard_stacked_batches(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [steps, S, B, ...] along the mesh axes of members and of a batch.

    Each process holds the parts for its `local_members` and `local_rows`.
    """
    return jax.tree.map(lambda x: _place(NamedSharding(mesh, PartitionSpec(None, "member", BATCH)), x), tree)


def stacked(shardings):
    """Returns the shardings of a state with a leading axis of members, given those of a single state."""
    return jax.tree.map(lambda x: NamedSharding(x.mesh, PartitionSpec("member", *x.spec)), shardings)


def shard_members(mesh: jax.sharding.Mesh, tree):
    """Places host arrays [S, ...], equal on all processes, along the mesh axis `member`."""

    def place(x):
        x = np.asarray(x)
        return _place(NamedSharding(mesh, PartitionSpec("member")), x[local_members(mesh, len(x))], x.shape)

    return jax.tree.map(place, tree)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds in full, so that every process can read them."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_replicated(mesh: jax.sharding.Mesh, tree):
    """Makes every array complete on every device. Called inside jit."""
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def constrain_batch(mesh: jax.sharding.Mesh, tree):
    """Keeps the leading axis of every array along the mesh axes of a batch. Called inside jit."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(BATCH)))


def _place(sharding: NamedSharding, x: np.ndarray, shape: tuple[int, ...] | None = None) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, x, shape)
