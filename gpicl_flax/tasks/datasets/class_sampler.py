"""Draws the examples of sequences from a split by their classes, and random labels in the place of theirs."""

from typing import Any, NamedTuple, Self

import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.class_distribution import ClassDistribution, host_noise
from gpicl_flax.tasks.datasets.sampler import ExampleSampler


class ClassSampler(NamedTuple):
    """Draws the classes of a sequence, and then an example of each.

    Attributes:
      distribution: of the classes.
      indices: [n] int32, the examples of the split in the order of their classes.
      starts: [C + 1], where the examples of each class begin and end in that order.
    """

    distribution: ClassDistribution
    indices: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_labels(cls, distribution: ClassDistribution, labels: np.ndarray, what: str) -> Self:
        """Makes the sampler of a split with these labels [n]; messages call it `what`.

        Raises:
          UsageError: a class has no example.
        """
        counts = np.bincount(labels, minlength=distribution.num_classes)
        if not counts.all():
            raise UsageError(
                f"{what} has no example of class {counts.argmin()}; sequences that are drawn by their classes need "
                f"examples of all {distribution.num_classes}"
            )
        return cls(distribution, np.argsort(labels, kind="stable").astype(np.int32), np.append(0, counts.cumsum()))

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> dict[str, np.ndarray]:
        """Returns the part of a batch that names its examples: example_indices [num_sequences, length] int32."""
        noise = host_noise(rng, num_sequences, length, self.distribution.num_classes)
        return {"example_indices": self.examples_of(rng, self.distribution.draw(noise))}

    def examples_of(self, rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
        """Returns example indices [B, T] int32 of classes [B, T].

        Those of a class are uniform without replacement within a sequence. A class that comes more often than it has
        examples begins anew with all of them.
        """
        first, size = self.starts[classes], np.diff(self.starts)[classes]
        rounds = _earlier_of_class(classes) // size

        def draw(at: Any) -> np.ndarray:
            return self.indices[first[at] + rng.integers(size[at])]

        chosen = draw(...)
        rows = np.arange(len(classes))
        while True:  # redraw repetitions; examples of a class are exchangeable, so this favours none
            identity = rounds[rows] * len(self.indices) + chosen[rows]
            is_repeated = _earlier_of_class(identity) > 0
            again, columns = np.nonzero(is_repeated)
            if not len(again):
                return chosen
            chosen[rows[again], columns] = draw((rows[again], columns))
            rows = rows[is_repeated.any(axis=1)]


class RandomLabels(NamedTuple):
    """Adds random labels to what another sampler draws.

    Attributes:
      sampler: the other.
      rate: the probability that an example has a random label.
      num_classes: C.
    """

    sampler: ExampleSampler | ClassSampler
    rate: float
    num_classes: int

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> dict[str, np.ndarray]:
        """Adds random_labels [num_sequences, length] int32: uniform classes, or -1 where an example keeps its label."""
        batch, size = self.sampler(rng, num_sequences, length), (num_sequences, length)
        others = rng.integers(self.num_classes, size=size, dtype=np.int32)
        return batch | {"random_labels": np.where(rng.random(size) < self.rate, others, np.int32(-1))}


def _earlier_of_class(classes: np.ndarray) -> np.ndarray:
    """Returns for each of classes [B, T] how many equal ones are before it in its sequence."""
    order = np.argsort(classes, axis=1, kind="stable")
    ordered = np.take_along_axis(classes, order, axis=1)
    places = np.broadcast_to(np.arange(classes.shape[1]), classes.shape)
    begins = np.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    earlier = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    found = np.empty_like(earlier)
    np.put_along_axis(found, order, earlier, axis=1)
    return found
