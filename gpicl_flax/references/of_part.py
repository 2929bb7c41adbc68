"""A reference of one family, on the sequences of a mixture of families."""

import jax
import jax.numpy as jnp

from gpicl_flax.references.reference import Reference
from gpicl_flax.tasks.families.family import Sequences, TaskFamily

_LEAST_LOG_PROBABILITY = -80.0  # nats; of a class that a family does not have, so that its loss stays finite


def of_part(reference: Reference, part: TaskFamily, num_classes: int) -> Reference:
    """Returns a reference that takes the sequences of a mixture for ones of the family `part`.

    It is given the inputs of that family, and learns from shown classes that the family has.

    Args:
      reference: one of `part`.
      part: the family.
      num_classes: C of the mixture; 0: targets are numbers.
    """
    own_classes = part.targets.num_classes
    unknown = _LEAST_LOG_PROBABILITY if reference.has_probabilities else -jnp.inf

    def predict(seed: jax.Array, sequences: Sequences) -> jax.Array:
        own = sequences._replace(inputs=sequences.inputs[..., : part.num_features])
        if not num_classes:
            return reference.predict(seed, own)
        shown = sequences.shown_targets(sequences.targets)
        known = jnp.where(shown < own_classes, shown, -1)
        predicted = reference.predict(seed, own._replace(targets=known, shown=None))
        room = ((0, 0), (0, 0), (0, num_classes - own_classes))
        return jnp.pad(predicted, room, constant_values=unknown)

    return reference._replace(predict=predict)
