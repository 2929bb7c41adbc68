"""Batches of tasks on the devices, as training steps, diagnostics and meta-tests make them."""

import dataclasses
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax

from gpicl_flax.tasks.families.data import Batch, Examples, TaskData
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.training import device_data, partitioning


class SplitOnMesh(NamedTuple):
    """A split of the data of a family, and what programs read of it on the devices.

    Attributes:
      split: the examples, in the memory of the host.
      data: the input of programs besides their batches. It contains the examples if they are on the devices.
      on_device: whether they are, so that batches contain indices only.
    """

    split: Examples
    data: Any
    on_device: bool

    def complete(self, batch: Batch) -> Batch:
        """Adds the examples that the devices do not have to a batch of indices."""
        return batch if self.on_device else self.split.gather(batch)


@dataclasses.dataclass(frozen=True)
class TaskBatches:
    """Makes sequences of tasks on a mesh. Two of these are equal if their programs are.

    Attributes:
      tasks: the task family; members of a stack may differ in its `member_settings`.
      drawing: how tasks are drawn, determined by `tasks` and the data that are trained on.
      mesh: the devices.
      placement: where base examples are kept, as in `Loader.placement`; it does not change results.
      num_members: members of the stack, which share the memory of a device.
    """

    tasks: TaskFamily = dataclasses.field(compare=False)
    drawing: Hashable
    mesh: jax.sharding.Mesh
    placement: str = dataclasses.field(default="auto", compare=False)
    num_members: int = 1
    program_settings: Hashable = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "program_settings", self.tasks.program_settings)

    @property
    def num_shards(self) -> int:
        """The number of parts that the sequences of a batch are divided into."""
        return partitioning.batch_shards(self.mesh)

    def put_on_mesh(self, dataset: TaskData, split: Examples) -> SplitOnMesh:
        """Copies a split of the data to every device, if it fits, and what else programs read of the data."""
        data = partitioning.replicate(self.mesh, self.tasks.device_data(dataset, self.drawing))
        if not split.nbytes:
            return SplitOnMesh(split, data, on_device=True)
        on_device = device_data.on_device(self.placement, split)
        if on_device:
            inputs, labels = partitioning.replicate(self.mesh, split.arrays)
            data = data._replace(split=(jax.device_put(inputs, partitioning.row_major(self.mesh)), labels))
        return SplitOnMesh(split, data, on_device)

    def make_sequences(self, seed: jax.Array, batch: dict[str, jax.Array], data: Any, numbers: Any) -> Sequences:
        """Returns the sequences of one member's batch, along the mesh axes of a batch. Called inside a program.

        Args:
          seed: the seed of the tasks, uint32.
          batch: task_ids [B], and what the data's sampler draws for each sequence.
          data: `SplitOnMesh.data`.
          numbers: those of the member's tasks, see `TaskFamily.numbers`.
        """
        # The members that share a device make their tasks at the same time, so each gets a part of the memory.
        members = self.num_members // self.mesh.shape["member"]
        room = device_data.projection_bytes(self.mesh) // members
        sequences = self.tasks.make_sequences(
            self.drawing, seed, batch, data, numbers, max_bytes=room, num_shards=self.num_shards
        )
        return partitioning.constrain_batch(self.mesh, sequences)
