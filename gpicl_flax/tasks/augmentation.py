"""Task augmentation: a task id becomes a projection and a label permutation, as pure functions on the device.

A task is a function of (seed, task id) and of nothing else: not of its place in a batch, the batch size, the number
of devices or processes, or the base dataset it is applied to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Task(NamedTuple):
    """One task. projection [X, X] float32 maps x to projection @ x; label_permutation [C] int32 maps y to its entry."""

    projection: jax.Array
    label_permutation: jax.Array


class Examples(NamedTuple):
    """Base examples of sequences, before they become tasks.

    Attributes:
      inputs: [B, T, X], grey values uint8 or features float32.
      labels: [B, T] int32.
    """

    inputs: jax.Array
    labels: jax.Array


class Normalization(NamedTuple):
    """What a model is given is (inputs - offset) / scale."""

    offset: jax.Array
    scale: jax.Array


def make_task(
    key: jax.Array, task_id: jax.Array, *, num_features: int, num_classes: int, permute_labels_prob: float | jax.Array
) -> Task:
    """The task with id `task_id`, a uint32 scalar, under the run's key of tasks (Section 3.1 of the paper).

    The projection has iid N(0, 1/X) entries. With probability 1 - permute_labels_prob, decided by the id as well, the
    label permutation is the identity.
    """
    projection_key, permutation_key, bias_key = jax.random.split(jax.random.fold_in(key, task_id), 3)
    projection = jax.random.normal(projection_key, (num_features, num_features)) / jnp.sqrt(num_features)
    permuted = jax.random.bernoulli(bias_key, permute_labels_prob)
    permutation = jax.random.permutation(permutation_key, num_classes)
    return Task(projection, jnp.where(permuted, permutation, jnp.arange(num_classes)))


def apply_task(task: Task, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """inputs [..., T, X] and labels [..., T] of base examples -> the same examples in `task`."""
    return inputs @ task.projection.T, task.label_permutation[labels]


def make_sequences(
    key: jax.Array,
    task_ids: jax.Array,
    examples: Examples,
    normalization: Normalization,
    *,
    num_classes: int,
    permute_labels_prob: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Sequences of task_ids [B] made from base examples: inputs [B, T, X] float32 and labels [B, T] int32."""

    def sequence(task_id, inputs, labels):
        task = make_task(
            key,
            task_id,
            num_features=inputs.shape[-1],
            num_classes=num_classes,
            permute_labels_prob=permute_labels_prob,
        )
        inputs = (inputs.astype(jnp.float32) - normalization.offset) / normalization.scale
        return apply_task(task, inputs, labels)

    return jax.vmap(sequence)(task_ids, *examples)
