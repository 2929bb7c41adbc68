"""What a learner predicts along sequences."""

import numpy as np
import scipy.special

from gpicl_flax.learners.inspect.sequences import Sequences
from gpicl_flax.learners.learner import Learner


def probabilities(learner: Learner, sequences: Sequences) -> np.ndarray:
    """[B, T, C]: what the learner gives to every label before it sees the right one."""
    return scipy.special.softmax(learner.forward(sequences.inputs, sequences.labels)[0].astype(np.float64), axis=-1)
