"""The state from which a learner answers, after each token of a sequence."""

import jax
import numpy as np

from gpicl_flax.learners.inspect.sequences import Sequences
from gpicl_flax.learners.learner import Learner
from gpicl_flax.models.sequence_model import Context


def states(learner: Learner, sequences: Sequences) -> np.ndarray | None:
    """Returns the state from which the learner answers after each number of tokens, 0 to T, [B, T + 1, numbers].

    Returns None if its model keeps nothing, or a state that grows with the sequence.
    """
    model, (batch, length, num_features) = learner.run.model, sequences.inputs.shape
    if not 0 < model.state_size(num_features, 1).exact == model.state_size(num_features, 2).exact:
        return None
    found = []
    for tokens in range(length + 1):
        context = learner.encode(sequences.inputs, sequences.labels, tokens)
        leaves = jax.tree.leaves(context.state if isinstance(context, Context) else context)
        found.append(np.concatenate([np.asarray(x, np.float32).reshape(batch, -1) for x in leaves], axis=1))
    return np.stack(found, axis=1)
