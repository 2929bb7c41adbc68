"""The parts of the state of a model, by the names that the model itself gives to them."""

import collections
from typing import Any

import jax
import jax.numpy as jnp

from gpicl_flax.models.sequence_model import SequenceModel, StatefulModel


def state_parts(model: SequenceModel, num_features: int, sequence_length: int) -> dict[str, int]:
    """Returns how many numbers of the exact state each of its parts has, such as 'matrix' or 'convolution'.

    The names and sizes are those of the state that the model leaves for one sequence, which nothing computes here.
    Parts of the same name in several blocks are one. A model that adapts parameters keeps those.

    Args:
      model: any sequence model.
      num_features: X.
      sequence_length: the examples of the context.
    """
    inputs = jax.ShapeDtypeStruct((1, sequence_length, num_features), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, sequence_length), jnp.int32)

    def state(key, inputs, labels):
        variables, rngs = model.init(key, inputs, labels), {"learner": key}
        if not isinstance(model, StatefulModel):
            return model.apply(variables, inputs, labels, rngs=rngs, method="encode")
        parts = model.token_parts(inputs, labels)
        return model.apply(variables, parts, sequence_length, rngs=rngs, method="prefill")[1]

    found = collections.Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(state, jax.random.key(0), inputs, labels)):
        name = _name(path) if isinstance(model, StatefulModel) else "parameters"
        found[name] += leaf.size
    return dict(found.most_common())


def _name(path: tuple[Any, ...]) -> str:
    """Returns the first name on the path to an array of a state."""
    names = (getattr(entry, "key", getattr(entry, "name", None)) for entry in path)
    return next(name for name in names if isinstance(name, str)).replace("_", " ")
