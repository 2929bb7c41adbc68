"""Draws the examples of sequences from a split."""

from typing import NamedTuple

import numpy as np


class ExampleSampler(NamedTuple):
    """Draws examples from a split by their number alone, so that it can be sent to another process.

    Attributes:
      num_examples: those of the split.
      group_size: see `base_dataset.Split`.
    """

    num_examples: int
    group_size: int | None = None

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> dict[str, np.ndarray]:
        """Returns the part of a batch that names its examples: example_indices [num_sequences, length] int32."""
        return {"example_indices": draw_example_indices(rng, num_sequences, length, *self)}


def draw_example_indices(
    rng: np.random.Generator, num_sequences: int, length: int, num_examples: int, group_size: int | None = None
) -> np.ndarray:
    """Returns example indices [num_sequences, length] int32.

    They are uniform without replacement within a sequence. With a group size, each sequence draws a group of neighbours
    and then, uniformly with replacement, examples of this group.
    """
    if group_size is not None:
        groups = rng.integers(num_examples // group_size, size=(num_sequences, 1), dtype=np.int32)
        return groups * group_size + rng.integers(group_size, size=(num_sequences, length), dtype=np.int32)
    if length**2 > 4 * num_examples:  # almost every sequence would have repetitions, so shuffle instead
        keys = rng.random((num_sequences, num_examples))
        chosen = np.argpartition(keys, length - 1, axis=1)[:, :length]
        return rng.permuted(chosen, axis=1).astype(np.int32)
    indices = rng.integers(num_examples, size=(num_sequences, length), dtype=np.int32)
    rows = np.arange(num_sequences)
    while True:  # redraw sequences that have a repetition
        ordered = np.sort(indices[rows], axis=1)
        rows = rows[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        if not len(rows):
            return indices
        indices[rows] = rng.integers(num_examples, size=(len(rows), length), dtype=np.int32)
