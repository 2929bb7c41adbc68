"""Task augmentation: maps a task id to a projection and a label permutation, as pure functions on the device.

A task depends on (seed, task id) alone. It does not depend on its place in a batch, the batch size, the number of
devices or processes, or the base dataset that it is applied to. Only Gram projections (see `projections.spec`) are
specific to the one sequence that they are applied to.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.tasks import projections
from gpicl_flax.tasks.projections.spec import ProjectionSpec

# Beyond the counters of the three keys of a task, so that features share no random bits with them.
_FEATURES = 4


class Task(NamedTuple):
    """One task.

    projection [R, X] float32 maps coordinates c to c @ projection; label_permutation [C] int32 maps y to its entry.
    """

    projection: jax.Array
    label_permutation: jax.Array


class Examples(NamedTuple):
    """Base examples of sequences, before they become tasks.

    Attributes:
      coordinates: [B, T, R] float32, of the normalised inputs, in the basis that projections are drawn in. They are the
        pixels themselves, unless the images are smaller than the input shape.
      labels: [B, T] int32.
    """

    coordinates: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray


def make_task(
    key: jax.Array,
    task_id: jax.Array,
    *,
    num_coordinates: int,
    num_features: int,
    num_classes: int,
    permute_labels_prob: float | jax.Array,
    num_fixed: int = 0,
) -> Task:
    """Returns the task with id `task_id`, a uint32 scalar, under the run's task key (Section 3.1 of the paper).

    The projection has iid N(0, 1/X) entries, and each row is the same for any number of rows. With probability 1 -
    permute_labels_prob, the label permutation is the identity. The id determines this as well. The first `num_fixed`
    classes always keep their labels.
    """
    keys = _keys(key, task_id)
    projection = projections.draw(keys[0], num_coordinates, num_features)
    return Task(projection, _label_permutation(keys, num_classes, permute_labels_prob, num_fixed))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Makes sequences of tasks from base examples, for one way of drawing projections.

    Attributes:
      projection: how projections are drawn.
      num_classes: C.
      max_projection_bytes: bytes that projections may take on each device, which limits how many sequences are made at
        once. Gram projections need none.
      num_shards: the number of devices along B, which divides B.
      num_fixed: the first classes whose label no task moves.
    """

    projection: ProjectionSpec
    num_classes: int
    max_projection_bytes: int = 2**28
    num_shards: int = 1
    num_fixed: int = 0

    def make_sequences(
        self,
        key: jax.Array,
        task_ids: jax.Array | np.ndarray,
        examples: Examples,
        permute_labels_prob: float | jax.Array,
        fourier_rms: jax.Array | np.float32 | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Applies the tasks task_ids [B] to base examples. Returns inputs [B, T, X] float32 and labels [B, T] int32.

        Args:
          key: the task key of the run.
          task_ids: [B] uint32.
          examples: the base examples.
          permute_labels_prob: see `make_task`.
          fourier_rms: the root mean square of the normalised inputs, to make random Fourier features of the projected
            ones; None: projections stay as they are.
        """
        num_features = self.projection.num_features
        settings = {"num_classes": self.num_classes, "permute_labels_prob": permute_labels_prob}
        settings |= {"num_fixed": self.num_fixed}

        def linear(task_id, coordinates, labels):
            if self.projection.replayable:
                size = {"num_coordinates": coordinates.shape[-1], "num_features": num_features}
                task = make_task(key, task_id, **size, **settings)
                return coordinates @ task.projection, task.label_permutation[labels]
            keys = _keys(key, task_id)
            inputs = projections.gram_inputs(keys[0], coordinates, num_features)
            return inputs, _label_permutation(keys, **settings)[labels]

        def fourier(task_id, coordinates, labels):
            assert fourier_rms is not None
            projected, task_labels = linear(task_id, coordinates, labels)
            own_key = jax.random.fold_in(jax.random.fold_in(key, task_id), _FEATURES)
            return projections.fourier_features(own_key, projected, fourier_rms), task_labels

        num_parts = 1
        if self.projection.replayable:
            rows, nbytes = len(task_ids) // self.num_shards, 4 * examples.coordinates.shape[-1] * num_features
            sizes = (n for n in range(rows, 0, -1) if rows % n == 0)
            at_once = next(n for n in sizes if n == 1 or n * nbytes <= self.max_projection_bytes)
            num_parts = rows // at_once
        return _in_parts(jax.vmap(linear if fourier_rms is None else fourier), num_parts, (task_ids, *examples))


def _in_parts(function, num_parts: int, arrays):
    """Applies `function` to parts of the arrays, one after another.

    Part i takes every num_parts-th row, so that each device works on rows that it holds.
    """
    if num_parts == 1:
        return function(*arrays)
    parts = jax.tree.map(lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), arrays)
    results = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), results)


def _keys(key: jax.Array, task_id: jax.Array) -> jax.Array:
    """Returns the keys of a task: for its projection, its permutation and its bias."""
    return jax.random.split(jax.random.fold_in(key, task_id), 3)


def _label_permutation(
    keys: jax.Array, num_classes: int, permute_labels_prob: float | jax.Array, num_fixed: int
) -> jax.Array:
    permuted, same = jax.random.bernoulli(keys[2], permute_labels_prob), jnp.arange(num_classes)
    moved = num_fixed + jax.random.permutation(keys[1], num_classes - num_fixed)
    return jnp.where(permuted, jnp.concatenate([same[:num_fixed], moved]), same)
