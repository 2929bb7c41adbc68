"""Maps a program over batches of sequences."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gpicl_flax.tasks.families.data import Batch
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import SplitOnMesh


def in_batches(evaluate: Callable, rows: Batch, test: SplitOnMesh, batch_size: int, mesh: jax.sharding.Mesh) -> Any:
    """Maps `evaluate` over batches of rows. The last batch is padded with its first row, so that one program fits all.

    Args:
      evaluate: takes the number of a batch's first row, and the batch; it returns a pytree of arrays [batch, ...].
      rows: arrays [n, ...].
      test: completes a batch with examples.
      batch_size: rows of a batch, approximately.
      mesh: the devices that share a batch.

    Returns:
      The same pytree of arrays [n, ...] of the host.
    """
    num_rows, shards = len(rows["task_ids"]), partitioning.batch_shards(mesh)
    batch_size = -(-min(batch_size, num_rows) // shards) * shards
    results = []
    for start in range(0, num_rows, batch_size):
        numbers = np.arange(start, start + batch_size)
        numbers = np.where(numbers < num_rows, numbers, start)
        own = numbers[partitioning.local_rows(mesh, batch_size)]
        batch = partitioning.shard_batch(mesh, test.complete({name: x[own] for name, x in rows.items()}))
        results.append(jax.device_get(evaluate(np.uint32(start), batch)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num_rows], *results)
