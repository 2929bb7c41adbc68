"""Batches that are measured again and again along training, on the devices."""

from typing import Any

import numpy as np

from gpicl_flax.tasks.families.data import Batch
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches


def num_rows(task_batches: TaskBatches, num_sequences: int) -> int:
    """Returns `num_sequences`, rounded up to a multiple that the mesh divides."""
    return -(-num_sequences // task_batches.num_shards) * task_batches.num_shards


def put_on_mesh(task_batches: TaskBatches, train: SplitOnMesh, members: list[Batch]) -> Any:
    """Returns the batches [B] of the members of a stack on the devices, arrays [steps = 1, S, B, ...]."""
    mesh, count = task_batches.mesh, len(members[0]["task_ids"])
    batch = {name: np.stack([each[name] for each in members]) for name in members[0]}
    own = np.ix_(partitioning.local_members(mesh, len(members)), partitioning.local_rows(mesh, count))
    one_step = {name: x[own][None] for name, x in batch.items()}
    return partitioning.shard_stacked_batches(mesh, train.complete(one_step))
