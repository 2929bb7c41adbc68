"""Curricula: tasks that are easier at first.

They go beyond the paper, whose only intervention on the tasks is a constant bias p. Those of sequence_length and
dimensions are of Garg et al. 2022 (arXiv 2208.01066, Appendix A).
"""

import dataclasses
from typing import Any

import gin
import jax
import jax.numpy as jnp

from gpicl_flax.training import schedules
from gpicl_flax.training.schedules import Schedule


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Properties of the training tasks that follow a schedule of the step, such as `@optax.linear_schedule()`.

    A property that is None is constant. The loss and the accuracies that a run logs are those of the tasks it trains
    on, so under a curriculum they do not show when the plateau of the full tasks was left. The loss on unseen tasks of
    `Diagnostics` does. A meta-test always uses the full tasks.

    Attributes:
      sequence_length: examples of a sequence that count, rounded and kept in 1..T. Later examples are computed but have
        no weight in the loss. For a causal model this is equivalent to sequences of that length.
      num_classes: classes of a task, rounded and kept in 1..C. Labels are taken modulo this number, so that classes are
        merged at first.
      permute_labels_prob: p, in place of TaskDistribution.permute_labels_prob.
      dimensions: inputs of FunctionClasses that are not zero, the first ones, rounded and kept in 1..d.

    Raises:
      UsageError: a value is no schedule.
    """

    sequence_length: Schedule | None = None
    num_classes: Schedule | None = None
    permute_labels_prob: Schedule | None = None
    dimensions: Schedule | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                schedules.check(f"Curriculum.{field.name}", value)

    def numbers(self, step: jax.Array, full: Any) -> Any:
        """Returns the numbers of a step's tasks that programs read (see `TaskFamily.numbers`), given the full ones'.

        No family has two of them, so that a schedule gives all.
        """
        if self.permute_labels_prob is not None:
            return jnp.clip(self.permute_labels_prob(step), 0, 1)
        if self.dimensions is not None:
            return jnp.clip(jnp.round(self.dimensions(step)), 1, full)
        return full

    def merge_classes(self, step: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
        """Returns the labels [B, T] of the step's tasks, given those of the full ones."""
        if self.num_classes is None:
            return labels
        return labels % _whole(self.num_classes(step), num_classes)

    def last_position(self, step: jax.Array, length: int) -> int | jax.Array:
        """Returns the last of the T = `length` positions that counts."""
        return length - 1 if self.sequence_length is None else _whole(self.sequence_length(step), length) - 1


def _whole(value: jax.Array, largest: int) -> jax.Array:
    return jnp.clip(jnp.round(value).astype(jnp.int32), 1, largest)
