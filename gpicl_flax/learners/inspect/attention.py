"""Where a Transformer looks along sequences, by layer and head."""

import numpy as np

from gpicl_flax.learners.inspect.sequences import Sequences
from gpicl_flax.learners.learner import Learner
from gpicl_flax.models.transformer import attention_weights


def weights(learner: Learner, sequences: Sequences) -> dict[str, np.ndarray]:
    """Returns, by layer in their order, [B, heads, T, T]: row t is where position t looks.

    Empty: the model attends to nothing.
    """
    layers = learner.forward(sequences.inputs, sequences.labels)[1]
    return {
        "/".join(path[:-1]): np.asarray(attention_weights(*pair))
        for path, pair in layers.items()
        if path[-1] == "attention"
    }
