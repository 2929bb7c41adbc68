"""Sequences of unseen tasks, as a meta-test draws them, with the examples that they are made of."""

import dataclasses

import jax
import numpy as np
import scipy.special

from gpicl_flax.learner import Learner
from gpicl_flax.models.sequence_model import Context
from gpicl_flax.models.transformer import attention_weights
from gpicl_flax.tasks import augmentation, input_space, keys, loader
from gpicl_flax.tasks.base_dataset import BaseDataset
from gpicl_flax.tasks.images import as_images, grey_values


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """What a learner reads, B sequences of T test examples, each of another unseen task.

    Attributes:
      base_dataset: its name.
      images: the examples as they are, before the task's projection, [B, T, height, width] or [B, T, height, width, 3],
        in [0, 1].
      inputs: [B, T, X], after it.
      labels: [B, T], in the task.
    """

    base_dataset: str
    images: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray


def unseen(learner: Learner, dataset: BaseDataset, count: int) -> Sequences:
    """The first `count` sequences of unseen tasks that a meta-test of `count` sequences on `dataset` draws (Section 3.1)."""
    run, test = learner.run, dataset.test
    size = count, run.tasks.sequence_length, len(test), test.group_size
    indices = loader.draw_example_indices(np.random.default_rng(run.seed), *size)
    stored, labels = test.inputs[indices], test.labels[indices]
    offset, scale = dataset.normalization(run.tasks.normalize)
    form = learner.projection_form
    coordinates = form.coordinates(dataset.stored_shape)((stored.astype(np.float32) - offset) / scale)
    inputs, task_labels = jax.device_get(
        augmentation.make_sequences(
            keys.tasks(run.seed),
            run.tasks.unseen_task_ids(count),
            augmentation.Examples(coordinates, labels),
            form,
            num_classes=run.tasks.num_classes,
            permute_labels_prob=1.0,
        )
    )
    grown = np.asarray(input_space.growth(dataset.stored_shape, dataset.input_shape)(grey_values(stored)))
    images = as_images(grown.reshape(-1, grown.shape[-1]), dataset.input_shape)
    return Sequences(dataset.name, images.reshape(*indices.shape, *images.shape[1:]), inputs, task_labels)


def probabilities(learner: Learner, sequences: Sequences) -> np.ndarray:
    """[B, T, C]: what the learner gives to every label before it sees the right one."""
    return scipy.special.softmax(learner.read(sequences.inputs, sequences.labels)[0].astype(np.float64), axis=-1)


def attention(learner: Learner, sequences: Sequences) -> dict[str, np.ndarray]:
    """By layer, in their order: [B, heads, T, T], row t is where position t looks. Empty: the model attends to nothing."""
    layers = learner.read(sequences.inputs, sequences.labels)[1]
    return {
        "/".join(path[:-1]): np.asarray(attention_weights(*pair))
        for path, pair in layers.items()
        if path[-1] == "attention"
    }


def states(learner: Learner, sequences: Sequences) -> np.ndarray | None:
    """[B, T + 1, numbers]: what the learner answers from after each number of tokens, from none to all; None: its model keeps
    nothing, or a state that grows with the sequence."""
    model, (batch, length, num_features) = learner.run.model, sequences.inputs.shape
    if not 0 < model.state_size(num_features, 1).exact == model.state_size(num_features, 2).exact:
        return None
    found = []
    for tokens in range(length + 1):
        context = learner.encode(sequences.inputs, sequences.labels, tokens)
        leaves = jax.tree.leaves(context.state if isinstance(context, Context) else context)
        found.append(np.concatenate([np.asarray(x, np.float32).reshape(batch, -1) for x in leaves], axis=1))
    return np.stack(found, axis=1)
