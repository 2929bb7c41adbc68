"""Decides where the examples of a base dataset lie, by the memory of the devices."""

import logging

import jax
import psutil

from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.families.data import Examples

logger = logging.getLogger(__name__)

ON_ACCELERATOR = 2**30  # bytes of projections that are made at once
_SHARE = 4  # a split may take a quarter of the free memory; the rest is for the model and its activations


def on_device(setting: str, split: Examples) -> bool:
    """Returns whether a split of a base dataset goes to the devices under a `Loader.placement`: to all or to none."""
    too_large = setting == "host" or setting == "auto" and split.nbytes * _SHARE > free_device_memory()
    return not distributed.max_over_processes(int(too_large), "where the base dataset lies")


def log(name: str, split: Examples, here: bool) -> None:
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
