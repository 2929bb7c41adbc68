"""Measures references that run on the host, at a few positions of the first sequences of a meta-test."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gpicl_flax.evaluation.batches import in_batches
from gpicl_flax.evaluation.curves import mean_curves
from gpicl_flax.references.on_host import HostReference
from gpicl_flax.tasks.families.data import Batch
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches

NUM_SEQUENCES = 64  # at most; each of them is learned anew at every position


def host_curves(
    references: Mapping[str, HostReference],
    task_batches: TaskBatches,
    test: SplitOnMesh,
    rows: Batch,
    seed: int,
    numbers: Any,
) -> dict[str, Any]:
    """Returns the entries of such references in a curve of a meta-test.

    Each has `positions`: of those that count, the one after a quarter, the one after half, and the last; the means over
    sequences of the accuracy, or for numbers of the squared error under the name of the score, with their intervals;
    and `num_sequences`, over which these are.

    Args:
      references: those to measure.
      task_batches: the batches of the meta-test.
      test: its examples.
      rows: its sequences, of which the first ones are taken: task ids and what the sampler drew for each.
      seed: the seed of the run.
      numbers: those of its tasks.
    """
    kind, first = task_batches.tasks.targets, {name: x[:NUM_SEQUENCES] for name, x in rows.items()}
    draw = functools.partial(_make_draw(task_batches), test.data, np.uint32(seed), numbers)
    inputs, targets, shown, counted = in_batches(draw, first, test, NUM_SEQUENCES, task_batches.mesh)
    counting = np.arange(targets.shape[1]) if counted is None else np.flatnonzero(counted.any(axis=0))
    positions = sorted({int(counting[place]) for place in (len(counting) // 4, len(counting) // 2, -1)})
    answers = targets[:, positions]
    entries = {}
    for name, reference in references.items():
        predicted = reference(inputs, shown, positions)
        if kind.num_classes:
            measured = {"accuracy": predicted.argmax(axis=-1) == answers}
        else:
            measured = {kind.score: np.square(predicted - answers)}
        own = mean_curves(measured, None if counted is None else counted[:, positions])
        entries[name] = own | {"positions": positions, "num_sequences": len(targets)}
    return entries


@functools.lru_cache(maxsize=4)  # the curves of a meta-test share one program
def _make_draw(task_batches: TaskBatches):
    """Returns a program that draws sequences: inputs, targets, targets as they are shown, and which of them count."""

    @jax.jit
    def draw(data, seed, numbers, start, batch):
        sequences = task_batches.make_sequences(seed, batch, data, numbers)
        shown = sequences.shown_targets(sequences.targets)
        drawn = sequences.inputs, sequences.targets, shown, sequences.counted
        return partitioning.constrain_replicated(task_batches.mesh, drawn)

    return draw
