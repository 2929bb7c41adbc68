"""The SGD baseline of Table 2: a fresh classifier for every sequence, and one optimiser step an example."""

from typing import ClassVar

import gin
import jax
from flax import linen as nn

from gpicl_flax.baselines.online import OnlineLearner


@gin.configurable
class OnlineSGD(OnlineLearner):
    """Online gradient descent from a random classifier; the defaults, Adam at 1e-3 and no hidden layer, are the paper's.

    It has no parameters, so it is only meta-tested (Training.steps = 0).
    """

    is_meta_trained: ClassVar[bool] = False

    @nn.compact
    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]; draws the classifiers from the stream 'learner'."""

        def learn_sequence(key, inputs, labels):
            return self.learn(self.initial_classifier(key, inputs.shape[-1]), inputs, labels)

        keys = jax.random.split(self.make_rng("learner"), len(inputs))
        return jax.vmap(learn_sequence)(keys, inputs, labels)
