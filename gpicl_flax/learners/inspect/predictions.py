"""The predictions of a learner along sequences."""

import numpy as np
import scipy.special

from gpicl_flax.learners.inspect.sequences import Sequences
from gpicl_flax.learners.learner import Learner


def probabilities(learner: Learner, sequences: Sequences) -> np.ndarray:
    """Returns the probabilities [B, T, C] of every label, each before the learner sees the right one."""
    return scipy.special.softmax(learner.forward(sequences.inputs, sequences.labels)[0].astype(np.float64), axis=-1)
