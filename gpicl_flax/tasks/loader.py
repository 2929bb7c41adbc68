"""The Grain loader: one small record a step, holding task ids and example indices; the images stay on the device.

A record is a pure function of (seed, step). Every process draws the whole step, a few kB, and keeps its own rows, so
the data do not depend on how many processes read them, and a resumed run needs only its step number.
"""

from collections.abc import Iterator

import grain
import numpy as np

from gpicl_flax.tasks.distribution import TaskDistribution

Batch = dict[str, np.ndarray]

_ENDLESS = 2**40  # records; more steps than anyone will train


def training_batches(
    tasks: TaskDistribution,
    *,
    num_examples: int,
    seed: int,
    start_step: int = 0,
    steps_per_batch: int = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Endless batches of `steps_per_batch` training steps from `start_step` (a multiple of it) on.

    Args:
      tasks: what is drawn.
      num_examples: size of the base dataset's training split.
      seed: with the step number it determines a record.

    Yields:
      task_ids [steps_per_batch, B / process_count] uint32 and
      example_indices [steps_per_batch, B / process_count, T] int32.
    """
    rows = tasks.task_batch_size // process_count
    own = slice(process_index * rows, (process_index + 1) * rows)

    def draw(step: int, rng: np.random.Generator) -> Batch:
        task_ids = tasks.training_task_ids(step, rng)
        indices = draw_example_indices(rng, tasks.task_batch_size, tasks.sequence_length, num_examples)
        return {"task_ids": task_ids[own], "example_indices": indices[own]}

    records = grain.MapDataset.range(_ENDLESS).seed(seed).random_map(draw).batch(steps_per_batch)
    # Records are cheap to draw: one thread and a short buffer keep ahead of any step.
    iterator = iter(records.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
    iterator.set_state({"next_index": start_step // steps_per_batch})
    return iterator


def draw_example_indices(rng: np.random.Generator, num_sequences: int, length: int, num_examples: int) -> np.ndarray:
    """Uniform example indices [num_sequences, length] int32, without replacement within a sequence."""
    if length**2 > 4 * num_examples:  # hardly a sequence would be free of repetitions: shuffle
        keys = rng.random((num_sequences, num_examples))
        chosen = np.argpartition(keys, length - 1, axis=1)[:, :length]
        return rng.permuted(chosen, axis=1).astype(np.int32)
    indices = rng.integers(num_examples, size=(num_sequences, length), dtype=np.int32)
    while True:  # draw sequences with a repetition again
        ordered = np.sort(indices, axis=1)
        repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not len(repeated):
            return indices
        indices[repeated] = rng.integers(num_examples, size=(len(repeated), length), dtype=np.int32)
