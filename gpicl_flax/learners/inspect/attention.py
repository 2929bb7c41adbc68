"""The attention of a Transformer along sequences, by layer and head."""

import numpy as np

from gpicl_flax.learners.inspect.sequences import Sequences
from gpicl_flax.learners.learner import Learner
from gpicl_flax.models.attention import attention_weights


def weights(learner: Learner, sequences: Sequences) -> dict[str, np.ndarray]:
    """Returns the attention [B, heads, T, T] of each layer, in their order. Row t is that of position t.

    Returns an empty dict if the model has no attention.
    """
    layers = learner.forward(sequences.inputs, sequences.labels)[1]
    return {
        "/".join(path[:-1]): np.asarray(attention_weights(*pair))
        for path, pair in layers.items()
        if path[-1] == "attention"
    }
