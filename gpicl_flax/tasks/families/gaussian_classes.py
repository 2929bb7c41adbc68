"""Gaussian classes: every task has its own class means, and an example is its class mean plus noise.

Reddy 2024 (arXiv 2312.03002) has a relative of it, with K given classes and labels that several of them share.
"""

import dataclasses

import gin
import jax
import jax.numpy as jnp

from gpicl_flax.bindings.kinds import NotNegative, Width
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.targets import Classes


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianClasses(TaskFamily):
    """x = mean of class y + s N(0, I/d), with class means ~ N(0, I/d) for a task, and y uniform and independent.

    Attributes:
      num_classes: C.
      dimensions: d, which is X.
      noise: s, the standard deviation within a class, in units of that of the class means.
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

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

    def draw_sequence(self, task: jax.Array, key: jax.Array) -> Sequences:
        """Returns x [T, d] and y [T]."""
        label_key, noise_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (self.sequence_length,), 0, self.num_classes)
        deviations = jax.random.normal(noise_key, (self.sequence_length, self.dimensions)) / jnp.sqrt(self.dimensions)
        return Sequences(task[labels] + self.noise * deviations, labels)
