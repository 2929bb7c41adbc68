"""Batches of tasks on the devices, as training steps, diagnostics and meta-tests make them."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from gpicl_flax.tasks import keys, loader
from gpicl_flax.tasks.augmentation import Augmentation
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import device_data, partitioning
from gpicl_flax.training.device_data import DeviceData


class SplitOnMesh(NamedTuple):
    """A split of a base dataset, and the data that programs read of it on the devices.

    Attributes:
      split: the examples, in the memory of the host.
      data: the input of programs besides their batches. It contains the examples if they are on the devices.
    """

    split: Split
    data: DeviceData

    @property
    def on_device(self) -> bool:
        """Whether the examples are on the devices, so that batches contain indices only."""
        return self.data.split is not None

    def complete(self, batch: loader.Batch) -> loader.Batch:
        """Adds the examples that the devices do not have to a batch of indices."""
        return batch if self.on_device else loader.gather(self.split, batch)


@dataclasses.dataclass(frozen=True)
class TaskBatches:
    """Makes sequences of tasks on a mesh. Two of these are equal if their programs are.

    Attributes:
      tasks: the distribution of tasks; members of a stack may differ in its number of tasks and its bias.
      projection: how projections are drawn, determined by `tasks` and the base dataset that is trained on.
      mesh: the devices.
      placement: where base examples are kept, as in `Loader.placement`; it does not change results.
      num_members: members of the stack, which share the memory of a device.
    """

    tasks: TaskDistribution = dataclasses.field(compare=False)
    projection: ProjectionSpec
    mesh: jax.sharding.Mesh
    placement: str = dataclasses.field(default="auto", compare=False)
    num_members: int = 1
    num_classes: int = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "num_classes", self.tasks.num_classes)

    @property
    def num_shards(self) -> int:
        """The number of parts that the sequences of a batch are divided into."""
        return partitioning.batch_shards(self.mesh)

    def put_on_mesh(self, dataset: BaseDataset, split: Split) -> SplitOnMesh:
        """Copies a split of a base dataset to every device, if it fits, and the arrays that prepare its examples."""
        on_device = device_data.on_device(self.placement, split)
        offset, scale = (np.float32(x) for x in dataset.normalization(self.tasks.normalize))
        coordinates = self.projection.coordinates(dataset.stored_shape)
        data = partitioning.replicate(self.mesh, DeviceData(None, offset, scale, coordinates))
        if on_device:
            inputs, labels = partitioning.replicate(self.mesh, (split.inputs, split.labels))
            data = data._replace(split=(jax.device_put(inputs, partitioning.row_major(self.mesh)), labels))
        return SplitOnMesh(split, data)

    def make_sequences(
        self,
        seed: jax.Array,
        batch: dict[str, jax.Array],
        data: DeviceData,
        permute_labels_prob: float | jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sequences of one member's batch. Called inside a program.

        Args:
          seed: the seed of the tasks, uint32.
          batch: task_ids [B], and the indices or examples of their sequences [B, T].
          data: the data of the base dataset.
          permute_labels_prob: p.

        Returns:
          inputs [B, T, X] float32 and labels [B, T] int32, along the mesh axes of a batch.
        """
        # The members that share a device make their projections at the same time, so each gets a part of the memory.
        members = self.num_members // self.mesh.shape["member"]
        room = device_data.projection_bytes(self.mesh) // members
        augmentation = Augmentation(self.projection, self.num_classes, room, self.num_shards)
        sequences = augmentation.make_sequences(
            keys.task_key(seed), batch["task_ids"], data.examples(batch), permute_labels_prob
        )
        return partitioning.constrain_batch(self.mesh, sequences)
