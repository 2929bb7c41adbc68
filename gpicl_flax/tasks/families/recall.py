"""Recall: pairs of a key and a class are presented once, and then each key is asked for once.

It is the multi-query associative recall of Arora et al. 2023 (arXiv 2312.04927) with continuous keys. The exact look-up
of the keys answers everything.
"""

import dataclasses
from typing import NamedTuple

import gin
import jax
import jax.numpy as jnp

from gpicl_flax.bindings.kinds import NotNegative, Width
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.targets import Classes


class Pairs(NamedTuple):
    """A task: keys [N, d] float32 on the unit sphere, and their classes [N] int32."""

    keys: jax.Array
    classes: jax.Array


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recall(TaskFamily):
    """N pairs in a random order, and then a question for each key in another one. T is 2 N.

    Loss and accuracy count the questions alone, and the tokens after a question do not show its answer.

    Attributes:
      num_pairs: N.
      dimensions: d, the size of keys, which is X.
      num_classes: C, the number of answers.
      recency_exponent: a. The next key asked for is one of those remaining, with a probability in proportion to g^-a,
        where g = 1..N counts back from the pair presented last. With 0, the order is uniform.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

    Raises:
      UsageError: a value is out of its range.
    """

    num_pairs: Width = 16
    dimensions: Width = 32
    num_classes: Width = 10
    recency_exponent: NotNegative = 0.0
    sequence_length: Width = dataclasses.field(init=False, default=2)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sequence_length", 2 * self.num_pairs)

    @property
    def num_features(self) -> int:
        return self.dimensions

    @property
    def targets(self) -> Classes:
        return Classes(self.num_classes)

    def draw_task(self, key: jax.Array) -> Pairs:
        """Draws keys uniformly from the unit sphere, and their classes uniformly and independently."""
        key_key, class_key = jax.random.split(key)
        keys = jax.random.normal(key_key, (self.num_pairs, self.dimensions))
        classes = jax.random.randint(class_key, (self.num_pairs,), 0, self.num_classes)
        return Pairs(keys / jnp.linalg.norm(keys, axis=-1, keepdims=True), classes)

    def draw_sequence(self, task: Pairs, key: jax.Array) -> Sequences:
        """Returns keys [2 N, d] and their classes [2 N]; those of the second half are hidden, and count."""
        presented_key, asked_key = jax.random.split(key)
        presented = jax.random.permutation(presented_key, self.num_pairs)
        # Sorting log weights plus Gumbel noise draws without replacement, in proportion to the weights.
        gaps = self.num_pairs - jnp.arange(self.num_pairs)
        scores = jax.random.gumbel(asked_key, (self.num_pairs,)) - self.recency_exponent * jnp.log(gaps)
        order = jnp.concatenate([presented, presented[jnp.argsort(-scores)]])
        asked = jnp.arange(2 * self.num_pairs) >= self.num_pairs
        return Sequences(task.keys[order], task.classes[order], shown=~asked, counted=asked)
