"""Gaussian classes: every task has its own class means, and an example is its class mean plus noise.

Reddy 2024 (arXiv 2312.03002) has a relative of it, with K given classes and labels that several of them share.
"""

import dataclasses

import gin
import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import NotNegative, Width
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.class_distribution import device_noise, replace_labels
from gpicl_flax.tasks.families.class_axes import ClassAxes
from gpicl_flax.tasks.families.data import Batch, Examples
from gpicl_flax.tasks.families.family import Sequences
from gpicl_flax.tasks.targets import Classes


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianClasses(ClassAxes):
    """x = mean of class y + s N(0, I/d), with class means ~ N(0, I/d) for a task, and y uniform and independent.

    That is how y is by default; the axes of `ClassAxes` change it.

    Attributes:
      num_classes: C.
      dimensions: d, which is X.
      noise: s, the standard deviation within a class, in units of that of the class means.
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.
      burstiness, zipf_exponent, label_noise, query_only: see `ClassAxes`.
      fixed_labels: the share of the classes whose means are the same in all tasks. The seed of the run determines them.

    Raises:
      UsageError: a value is out of its range.
    """

    num_classes: Width = 10
    dimensions: Width = 16
    noise: NotNegative = 0.5

    @property
    def num_features(self) -> int:
        return self.dimensions

    @property
    def targets(self) -> Classes:
        return Classes(self.num_classes)

    def draw_task(self, key: jax.Array) -> jax.Array:
        """Returns class means [C, d]. They are exchangeable, so labels need no permutation."""
        return jax.random.normal(key, (self.num_classes, self.dimensions)) / jnp.sqrt(self.dimensions)

    def make_task(self, seed: jax.Array | np.uint32, task_id: jax.Array) -> jax.Array:
        means = super().make_task(seed, task_id)
        if not self.num_fixed:
            return means
        return jnp.concatenate([self.draw_task(keys.class_key(seed))[: self.num_fixed], means[self.num_fixed :]])

    def draw_sequence(self, task: jax.Array, key: jax.Array, classes: jax.Array | None = None) -> Sequences:
        """Returns x [T, d] and y [T], of the given classes [T] if there are any."""
        label_key, noise_key = jax.random.split(key)
        classes = self._draw_classes(label_key) if classes is None else classes
        deviations = jax.random.normal(noise_key, (self.sequence_length, self.dimensions)) / jnp.sqrt(self.dimensions)
        inputs, labels = task[classes] + self.noise * deviations, classes
        if self.label_noise:
            rate_key, other_key = jax.random.split(jax.random.fold_in(key, 2))
            others = jax.random.randint(other_key, labels.shape, 0, self.num_classes)
            is_random = jax.random.bernoulli(rate_key, self.label_noise, labels.shape)
            labels = replace_labels(labels, jnp.where(is_random, others, -1))
        return Sequences(inputs, labels, counted=self.counted(labels.shape))

    def _draw_classes(self, key: jax.Array) -> jax.Array:
        distribution = self.class_distribution
        if distribution.is_uniform:
            return jax.random.randint(key, (self.sequence_length,), 0, self.num_classes)
        return distribution.draw(device_noise(key, self.sequence_length, self.num_classes))

    def batch_of_classes(self, split: Examples, rng: np.random.Generator, classes: np.ndarray) -> Batch:
        return split.sampler(rng, *classes.shape) | {"classes": classes}
