"""The base dataset as programs read it: from the memory of every device, or from batches that the host brings."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.augmentation import Examples
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.projections.input_space import Coordinates

logger = logging.getLogger(__name__)

ON_ACCELERATOR = 2**30  # bytes of projections that are made at once
_SHARE = 4  # a split may take a quarter of the free memory; the rest is for the model and its activations


class DeviceData(NamedTuple):
    """The input of a program that all its batches share.

    Attributes:
      split: all examples, inputs [n, stored features] and labels [n]. None: each batch brings its own.
      offset, scale: tasks are made from (input - offset) / scale.
      coordinates: those of the normalised inputs.
    """

    split: tuple[jax.Array, jax.Array] | None
    offset: jax.Array | np.float32
    scale: jax.Array | np.float32
    coordinates: Coordinates

    def examples(self, batch: dict[str, jax.Array]) -> Examples:
        """Returns the base examples [B, T] of a batch, normalised. Called inside a program."""
        if self.split is None:
            inputs, labels = batch["inputs"], batch["labels"]
        else:
            inputs, labels = (array[batch["example_indices"]] for array in self.split)
        # Growing leaves a constant image unchanged, so normalising can come first.
        return Examples(self.coordinates((inputs.astype(jnp.float32) - self.offset) / self.scale), labels)


def on_device(setting: str, split: Split) -> bool:
    """Returns whether a split of a base dataset goes to the devices under a `Loader.placement`: to all or to none."""
    too_large = setting == "host" or setting == "auto" and split.nbytes * _SHARE > free_device_memory()
    return not distributed.max_over_processes(int(too_large), "where the base dataset lies")


def log(name: str, split: Split, here: bool) -> None:
    """Logs where a split of base dataset `name` goes."""
    where = "in device memory" if here else "gathered by the host"
    logger.info("base dataset %r: %s examples (%.1f MB) %s", name, f"{len(split):,}", split.nbytes / 1e6, where)


def free_device_memory() -> int:
    """Returns the free bytes of each device. Devices that share the host's memory get equal parts of it."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available // jax.local_device_count()


def device_memory(mesh: jax.sharding.Mesh) -> int:
    """Returns the bytes of each device, free or not. Those of a mesh that share the host's memory get equal parts."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory() * jax.process_count() // mesh.size


def host_memory() -> int:
    """Returns the bytes of this machine's memory, free or not."""
    return psutil.virtual_memory().total


def projection_bytes(mesh: jax.sharding.Mesh) -> int:
    """Returns how many bytes the projections that are made at once may take on each device.

    On CPU, smaller chunks are faster, because allocating fresh memory is expensive.
    """
    return 2**24 if mesh.devices.flat[0].platform == "cpu" else ON_ACCELERATOR
