"""The distribution of tasks that a run is meta-trained on: the settings, and which ids are seen and unseen."""

import dataclasses
import math
from typing import Annotated

import gin
import numpy as np

from gpicl_flax.bindings.kinds import Count, Range, Width, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, load_base_dataset
from gpicl_flax.tasks.projections import spec

# Training draws ids below this one. Ids from here on are never trained on, for any number of tasks.
FIRST_UNSEEN_ID = 2**31

_MOST_INPUTS = 2**20  # of an example; its projection has their square


@gin.configurable
@dataclasses.dataclass(frozen=True)
class TaskDistribution:
    """Tasks made from one base dataset by a random projection of the inputs and a permutation of the labels.

    Attributes:
      base_dataset: a name that `gpicl datasets list` shows or that TFDS has, or a path (see `sources.load`).
      data_dir: where TFDS keeps prepared datasets; None for its own default.
      input_shape: (height, width, channels) that images are resized to, or (features,) for a dataset of features; X is
        their product.
      num_classes: C.
      sequence_length: T, the examples of one sequence (N_D in the paper).
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      permute_labels_prob: p, the probability that a task permutes its labels. The other tasks, a fraction of 1 - p ("1
        - p biased"), keep them (Section 4.3 and Fig 9).
      sequences_per_task: sequences of one step that share a task.
      normalize: subtract the mean and divide by the standard deviation of the base dataset's training split; if False,
        grey values are only scaled to [0, 1] (Fig 4).
      projection: how projections are drawn, one of `spec.KINDS` or 'auto' (see `spec.choose`). All of them have the
        same distribution, and 'dense' and 'span' give the same tasks.

    Raises:
      UsageError: a value is out of its range.
    """

    base_dataset: str = "mnist"
    data_dir: str | None = None
    input_shape: tuple[Width, ...] = (14, 14, 1)
    num_classes: Width = 10
    sequence_length: Width = 100
    task_batch_size: Width = 128
    num_tasks: int | None = 2**25
    permute_labels_prob: Annotated[float, Range(0, 1)] = 0.1
    sequences_per_task: Count = 1
    normalize: bool = True
    projection: str = "auto"

    def __post_init__(self):
        check_settings(self)
        if self.projection not in ("auto", *spec.KINDS):
            names = ", ".join(("auto", *spec.KINDS))
            raise UsageError(f"TaskDistribution.projection must be one of {names}, not {self.projection!r}")
        if len(self.input_shape) not in (1, 3):
            raise UsageError(
                f"TaskDistribution.input_shape must be (height, width, channels) or (features,), not {self.input_shape}"
            )
        if math.prod(self.input_shape) > _MOST_INPUTS:
            raise UsageError(f"TaskDistribution.input_shape = {self.input_shape} has more than {_MOST_INPUTS:,} inputs")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))  # gin passes lists as they are written
        if self.num_tasks is not None and not 1 <= self.num_tasks <= FIRST_UNSEEN_ID:
            raise UsageError(f"TaskDistribution.num_tasks must be None or in 1..2**31, not {self.num_tasks}")
        if self.task_batch_size % self.sequences_per_task:
            raise UsageError(
                f"TaskDistribution.task_batch_size = {self.task_batch_size} is not a multiple of "
                f"sequences_per_task = {self.sequences_per_task}"
            )
        self.projection_spec(self.input_shape)

    def projection_spec(self, stored_shape: tuple[int, ...]) -> spec.ProjectionSpec:
        """Returns how projections are drawn for the base dataset trained on, given the shape it is stored in."""
        return spec.choose(
            self.projection,
            stored_shape=stored_shape,
            input_shape=self.input_shape,
            sequence_length=self.sequence_length,
            replayed=self.num_tasks is not None or self.sequences_per_task > 1,
        )

    @property
    def num_features(self) -> int:
        """X, the number of input features of one example."""
        return math.prod(self.input_shape)

    def load(self, name: str | None = None) -> BaseDataset:
        """Loads base dataset `name` (by default the one trained on) at this input shape, and checks that T fits."""
        name = name or self.base_dataset
        data = load_base_dataset(
            name, input_shape=self.input_shape, num_classes=self.num_classes, data_dir=self.data_dir
        )
        for split in ("train", "test"):
            examples = getattr(data, split)
            if examples.group_size is None and len(examples) < self.sequence_length:
                raise UsageError(
                    f"base dataset {name!r} has {len(examples)} {split} examples, fewer than "
                    f"TaskDistribution.sequence_length = {self.sequence_length}"
                )
        return data

    def training_task_ids(self, step: int, rng: np.random.Generator) -> np.ndarray:
        """Returns task ids [B] uint32 of training step `step`. If the tasks are unbounded, they are simply numbered."""
        num_drawn = self.task_batch_size // self.sequences_per_task
        if self.num_tasks is None:
            ids = np.arange(step * num_drawn, (step + 1) * num_drawn)
        else:
            ids = rng.integers(self.num_tasks, size=num_drawn)
        return np.repeat(ids, self.sequences_per_task).astype(np.uint32)

    def seen_task_ids(self, count: int) -> np.ndarray:
        """Returns ids [count] uint32 that replay seen tasks: 0..min(count, K)-1, repeatedly."""
        return (np.arange(count) % (self.num_tasks or count)).astype(np.uint32)

    def unseen_task_ids(self, count: int) -> np.ndarray:
        """Returns ids [count] uint32 that no training run draws."""
        return (FIRST_UNSEEN_ID + np.arange(count)).astype(np.uint32)
