"""The kinds of targets that sequences can have: their losses, their scores, and what a prediction without learning has.

Predictions are [B, T, n]: logits of C classes, a number, or a mean and a log variance. Targets are [B, T].
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Targets:
    """A kind of targets.

    Attributes:
      predicts: what a model with such targets predicts, as `SequenceModel.predicts` names it.
      score: the quantity by which learning within a sequence is judged: one of those that `measure` returns.
      unit: the unit of the loss, for people.
      num_classes: C; 0 for numbers.
    """

    predicts: ClassVar[str]
    score: ClassVar[str]
    unit: ClassVar[str]
    num_classes: int = dataclasses.field(default=0, init=False)

    @property
    def chance_loss(self) -> float:
        """The mean loss of the best prediction that learns nothing from the context."""
        raise NotImplementedError

    @property
    def chance_score(self) -> float:
        """The mean score of that prediction."""
        raise NotImplementedError

    def measure(self, predictions: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        """Returns what is measured of each prediction, arrays [B, T]: `loss`, and other quantities by their names.

        A quantity that is either true or false, such as `accuracy`, is bool.
        """
        raise NotImplementedError

    def as_run_info(self) -> dict[str, Any]:
        """Returns the entries of run.json that say how the run is judged (see `records.criteria`)."""
        return self._level_as_run_info()

    def _level_as_run_info(self) -> dict[str, Any]:
        """Returns the entry of run.json with the level of chance."""
        numbers = {"chance_loss": self.chance_loss, "chance_score": self.chance_score}
        return {"targets": {"predicts": self.predicts, "score": self.score, "unit": self.unit} | numbers}


@dataclasses.dataclass(frozen=True)
class Classes(Targets):
    """Classes: int32 in 0..C-1, logits [B, T, C], cross entropy in nats and accuracy. A hidden target is -1."""

    predicts: ClassVar[str] = "classes"
    score: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "nats"
    num_classes: int = 10

    @property
    def chance_loss(self) -> float:
        return math.log(self.num_classes)

    @property
    def chance_score(self) -> float:
        return 1 / self.num_classes

    def measure(self, predictions: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        losses, correct = sequence_losses(predictions, targets)
        return {"accuracy": correct, "loss": losses}

    def as_run_info(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}


def sequence_losses(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the cross entropy in nats [B, T], and whether the prediction is right [B, T], given logits [B, T, C]."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, jnp.argmax(logits, axis=-1) == labels


@dataclasses.dataclass(frozen=True)
class Numbers(Targets):
    """Numbers: float32, predictions [B, T, 1], squared error. A hidden target is 0.

    Attributes:
      variance: the variance of the targets over all tasks, which is the error of their mean.
    """

    predicts: ClassVar[str] = "numbers"
    score: ClassVar[str] = "loss"
    unit: ClassVar[str] = "squared error"
    variance: float

    @property
    def chance_loss(self) -> float:
        return self.variance

    @property
    def chance_score(self) -> float:
        return self.variance

    def measure(self, predictions: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        return {"loss": jnp.square(predictions[..., 0] - targets)}


@dataclasses.dataclass(frozen=True)
class Normals(Numbers):
    """Numbers whose distribution is predicted: mean and log variance [B, T, 2], the normal's -log density in nats."""

    predicts: ClassVar[str] = "normals"
    score: ClassVar[str] = "squared_error"
    unit: ClassVar[str] = "nats"

    @property
    def chance_loss(self) -> float:
        """The entropy of a normal distribution with the variance of the targets."""
        return (math.log(2 * math.pi * self.variance) + 1) / 2

    def measure(self, predictions: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        mean, log_variance = predictions[..., 0], predictions[..., 1]
        errors = jnp.square(mean - targets)
        losses = (math.log(2 * math.pi) + log_variance + errors * jnp.exp(-log_variance)) / 2
        return {"squared_error": errors, "loss": losses}
