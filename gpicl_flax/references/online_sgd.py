"""The SGD baseline of Table 2: a fresh classifier for every sequence, and one optimiser step for each example."""

from typing import ClassVar

import gin
import jax
from flax import linen as nn

from gpicl_flax.references.online import OnlineLearner


@gin.configurable
class OnlineSGD(OnlineLearner):
    """Online gradient descent from a random classifier.

    The defaults, Adam at 1e-3 and no hidden layer, are the paper's. It has no parameters, so it is only meta-tested
    (Training.steps = 0).
    """

    is_meta_trained: ClassVar[bool] = False

    @nn.compact
    def starts(self, batch, num_features):
        """Draws the parameters from the stream 'learner'."""
        keys = jax.random.split(self.make_rng("learner"), batch)
        return jax.vmap(lambda key: self.initial_classifier(key, num_features))(keys)
