"""A reference beside a model: how good it is on the same sequences, and how far the model is from it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.tasks.families.family import Sequences
from gpicl_flax.tasks.targets import Targets


class Reference(NamedTuple):
    """A predictor that learns no parameters.

    Attributes:
      predict: (seed of the run, sequences) -> predictions of every position from the examples before it: numbers
        [B, T], log probabilities [B, T, C], or scores of the classes [B, T, C]. It learns from the shown targets only.
      has_probabilities: whether it predicts log probabilities. Otherwise it has an accuracy, but no loss in nats, and
        no distance from a model that predicts classes.
      weighs_tasks: whether it weighs the K tasks of the family, all of which a sequence may be of. In a mixture, some
        ids are of other families.
    """

    predict: Callable[[jax.Array, Sequences], jax.Array]
    has_probabilities: bool = False
    weighs_tasks: bool = False

    def measure(self, kind: Targets, predicted: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        """Returns what `Targets.measure` returns of a model, as far as the reference has it, arrays [B, T]."""
        if not kind.num_classes:
            return {kind.score: jnp.square(predicted - targets)}
        measured = kind.measure(predicted, targets)
        return measured if self.has_probabilities else {"accuracy": measured["accuracy"]}

    def distance(self, kind: Targets, predicted: jax.Array, predictions: jax.Array) -> dict[str, jax.Array]:
        """Returns the distance of a model's predictions [B, T, n] from those of the reference, [B, T], if there is one.

        For numbers it is the squared difference; for classes the Kullback-Leibler divergence of the model's
        probabilities from the reference's in nats, which is the loss that the model could save if the reference is
        Bayes.
        """
        if not kind.num_classes:
            return {"distance": jnp.square(predictions[..., 0] - predicted)}
        if not self.has_probabilities:
            return {}
        probabilities = jnp.exp(predicted)
        ratios = predicted - jax.nn.log_softmax(predictions)
        return {"distance": jnp.where(probabilities > 0, probabilities * ratios, 0).sum(axis=-1)}
