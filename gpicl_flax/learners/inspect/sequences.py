"""Sequences of unseen tasks, as a meta-test draws them, with their original examples."""

import dataclasses

import jax
import numpy as np

from gpicl_flax.learners.learner import Learner
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.datasets.images import as_images, grey_values
from gpicl_flax.tasks.projections import input_space

_MAX_BYTES = 2**28  # of projections at once


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """The input of a learner, B sequences of T test examples, each of another unseen task.

    Attributes:
      base_dataset: its name.
      images: the examples before the task's projection, [B, T, height, width] or [B, T, height, width, 3], in [0, 1].
      inputs: the examples after it, [B, T, X].
      labels: those of the task, [B, T].
    """

    base_dataset: str
    images: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray


def unseen(learner: Learner, dataset: BaseDataset, count: int) -> Sequences:
    """Returns the first `count` sequences of unseen tasks that a meta-test draws (Section 3.1).

    The meta-test is one of `count` sequences on `dataset`.
    """
    run, test = learner.run, dataset.test
    drawn = run.tasks.sampler(test)(np.random.default_rng(run.seed), count, run.tasks.sequence_length)
    sequences = run.tasks.make_sequences(
        learner.drawing,
        np.uint32(run.seed),
        test.gather({"task_ids": run.tasks.unseen_task_ids(count)} | drawn),
        run.tasks.device_data(dataset, learner.drawing),
        run.tasks.unseen_numbers(run.tasks.numbers()),
        max_bytes=_MAX_BYTES,
        num_shards=1,
    )
    inputs, labels = jax.device_get(sequences[:2])
    indices = drawn["example_indices"]
    stored = test.inputs[indices]
    grown = np.asarray(input_space.growth(dataset.stored_shape, dataset.input_shape)(grey_values(stored)))
    images = as_images(grown.reshape(-1, grown.shape[-1]), dataset.input_shape)
    return Sequences(dataset.name, images.reshape(*indices.shape, *images.shape[1:]), inputs, labels)
