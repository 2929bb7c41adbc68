"""The data of a mixture in which one family has a base dataset: its examples, and seeds for the other families."""

import dataclasses
from typing import NamedTuple, Self

import numpy as np

from gpicl_flax.tasks.families.data import Batch, Examples, Sampler, SeedSampler, TaskData


class MixtureSampler(NamedTuple):
    """Draws what the family with a base dataset needs for a sequence, and a seed for the other ones."""

    examples: Sampler

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> Batch:
        """Returns arrays [num_sequences, ...]."""
        return self.examples(rng, num_sequences, length) | SeedSampler()(rng, num_sequences, length)


@dataclasses.dataclass(frozen=True)
class MixtureSplit:
    """A split of the base dataset. See `Examples`."""

    examples: Examples

    @property
    def nbytes(self) -> int:
        """The memory that the examples take."""
        return self.examples.nbytes

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The examples as arrays."""
        return self.examples.arrays

    @property
    def sampler(self) -> MixtureSampler:
        """Draws examples, and seeds."""
        return MixtureSampler(self.examples.sampler)

    def __len__(self) -> int:
        return len(self.examples)

    def gather(self, batch: Batch) -> Batch:
        """Returns a batch that holds the examples themselves."""
        return self.examples.gather(batch)

    def mapped(self, folder: str) -> Self:
        """Returns the same examples in files in `folder`."""
        return dataclasses.replace(self, examples=self.examples.mapped(folder))


@dataclasses.dataclass(frozen=True)
class MixtureData:
    """The base dataset `base`, for a mixture. See `TaskData`."""

    base: TaskData

    @property
    def name(self) -> str:
        """The name of the base dataset."""
        return self.base.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the base dataset."""
        return self.base.fingerprint

    @property
    def train(self) -> MixtureSplit:
        """The split for training."""
        return MixtureSplit(self.base.train)

    @property
    def test(self) -> MixtureSplit:
        """The split for tests."""
        return MixtureSplit(self.base.test)
