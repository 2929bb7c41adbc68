"""Sequences of unseen tasks, as a meta-test draws them, with their original examples."""

import dataclasses

import jax
import numpy as np

from gpicl_flax.learners.learner import Learner
from gpicl_flax.tasks import keys, loader
from gpicl_flax.tasks.augmentation import Augmentation, Examples
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.datasets.images import as_images, grey_values
from gpicl_flax.tasks.projections import input_space


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
    size = count, run.tasks.sequence_length, len(test), test.group_size
    indices = loader.draw_example_indices(np.random.default_rng(run.seed), *size)
    stored, labels = test.inputs[indices], test.labels[indices]
    offset, scale = dataset.normalization(run.tasks.normalize)
    projection = learner.projection_spec
    coordinates = projection.coordinates(dataset.stored_shape)((stored.astype(np.float32) - offset) / scale)
    inputs, task_labels = jax.device_get(
        Augmentation(projection, run.tasks.num_classes).make_sequences(
            keys.task_key(run.seed),
            run.tasks.unseen_task_ids(count),
            Examples(coordinates, labels),
            permute_labels_prob=1.0,
        )
    )
    grown = np.asarray(input_space.growth(dataset.stored_shape, dataset.input_shape)(grey_values(stored)))
    images = as_images(grown.reshape(-1, grown.shape[-1]), dataset.input_shape)
    return Sequences(dataset.name, images.reshape(*indices.shape, *images.shape[1:]), inputs, task_labels)
