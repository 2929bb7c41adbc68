"""The data that a family makes its tasks from: a base dataset, or none, where the device draws everything.

`BaseDataset` and its `Split` have this form as well, so that whoever trains or tests need not know which it is.
"""

import dataclasses
import hashlib
from typing import NamedTuple, Protocol, Self

import numpy as np

Batch = dict[str, np.ndarray]


class Sampler(Protocol):
    """Draws what a batch says of its sequences besides their tasks. It can be sent to another process."""

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> Batch:
        """Returns arrays [num_sequences, ...]."""
        ...


class Examples(Protocol):
    """A split of the data: what training, or a meta-test, may draw from."""

    @property
    def nbytes(self) -> int:
        """The memory that the examples take; 0: there are none."""
        ...

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The examples as arrays, which can be put on the devices."""
        ...

    @property
    def sampler(self) -> Sampler:
        """Draws from the split."""
        ...

    def __len__(self) -> int: ...

    def gather(self, batch: Batch) -> Batch:
        """Returns a batch that holds the examples themselves."""
        ...

    def mapped(self, folder: str) -> Self:
        """Returns the same examples in files in `folder`, whose memory all processes share."""
        ...


class TaskData(Protocol):
    """The data of a run.

    Attributes:
      name: its name in run.json, evaluations and figures.
      fingerprint: equal if and only if the data are.
      train, test: meta-training uses only `train`, meta-testing only `test`.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def train(self) -> Examples: ...

    @property
    def test(self) -> Examples: ...


class SeedSampler(NamedTuple):
    """Draws a seed for each sequence, from which the device draws the sequence."""

    def __call__(self, rng: np.random.Generator, num_sequences: int, length: int) -> Batch:
        """Returns sequence_seeds [num_sequences] uint32."""
        return {"sequence_seeds": rng.integers(2**32, size=num_sequences, dtype=np.uint32)}


@dataclasses.dataclass(frozen=True)
class NoExamples:
    """The split of a family without a base dataset."""

    nbytes: int = 0
    arrays: tuple[np.ndarray, ...] = ()
    sampler: SeedSampler = SeedSampler()

    def __len__(self) -> int:
        return 0

    def gather(self, batch: Batch) -> Batch:
        """Returns the batch: its seeds are all that there is."""
        return batch

    def mapped(self, folder: str) -> Self:
        """Returns the split: there is nothing to share."""
        return self


@dataclasses.dataclass(frozen=True)
class NoData:
    """The data of a family that draws its sequences on the device. See `TaskData`."""

    name: str
    train: NoExamples = NoExamples()
    test: NoExamples = NoExamples()

    @property
    def fingerprint(self) -> str:
        """A hash of the name: the settings of the family, which determine everything else, are in the configuration."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]
