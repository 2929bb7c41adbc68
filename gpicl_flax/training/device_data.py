"""Where a split of the base dataset lies while a program reads it: in the memory of every device, or with the host."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.augmentation import Examples
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.projections.input_space import Coordinates
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import partitioning

logger = logging.getLogger(__name__)

ON_ACCELERATOR = 2**30  # bytes of projections at once
_SHARE = 4  # of the free memory, what a split may take on the device; the rest is for the model and its activations


class DeviceData(NamedTuple):
    """What a program reads besides its batches.

    Attributes:
      split: all examples, inputs [n, stored features] and labels [n]; None: the batches bring theirs.
      offset, scale: a model is given tasks made from (input - offset) / scale.
      coordinates: of the normalised inputs.
    """

    split: tuple[jax.Array, jax.Array] | None
    offset: jax.Array
    scale: jax.Array
    coordinates: Coordinates

    def examples(self, batch: dict[str, jax.Array]) -> Examples:
        """The base examples [B, T] of a batch, normalised; inside a program."""
        if self.split is None:
            inputs, labels = batch["inputs"], batch["labels"]
        else:
            inputs, labels = (array[batch["example_indices"]] for array in self.split)
        # Growing leaves a constant image as it is, so that normalising can come first.
        return Examples(self.coordinates((inputs.astype(jnp.float32) - self.offset) / self.scale), labels)


def on_device(setting: str, split: Split) -> bool:
    """Whether a split of a base dataset goes to the devices, under a `Loader.placement`: to all, or to none."""
    too_large = setting == "host" or setting == "auto" and split.nbytes * _SHARE > free_device_memory()
    return not distributed.max_over_processes(int(too_large), "where the base dataset lies")


def log(name: str, split: Split, here: bool) -> None:
    """Logs where a split of base dataset `name` goes."""
    where = "in device memory" if here else "gathered by the host"
    logger.info("base dataset %r: %s examples (%.1f MB) %s", name, f"{len(split):,}", split.nbytes / 1e6, where)


def free_device_memory() -> int:
    """Bytes that are free on each device; where devices share the host's memory, its part of that."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available // jax.local_device_count()


def projection_bytes(mesh: jax.sharding.Mesh) -> int:
    """What the projections that are made at once may take on each device. On CPU little is faster: fresh memory is not
    free."""
    return 2**24 if mesh.devices.flat[0].platform == "cpu" else ON_ACCELERATOR


def put_on_mesh(
    mesh: jax.sharding.Mesh, dataset: BaseDataset, split: Split | None, projection: ProjectionSpec, *, normalize: bool
) -> DeviceData:
    """Brings a split of `dataset`, if there is one to bring, and what prepares it to every device of the mesh."""
    offset, scale = dataset.normalization(normalize)
    examples = None if split is None else (split.inputs, split.labels)
    coordinates = projection.coordinates(dataset.stored_shape)
    data = partitioning.replicate(mesh, DeviceData(examples, np.float32(offset), np.float32(scale), coordinates))
    if data.split is None:
        return data
    inputs, labels = data.split
    return data._replace(split=(jax.device_put(inputs, partitioning.row_major(mesh)), labels))
