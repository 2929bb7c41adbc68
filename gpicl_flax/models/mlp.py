"""The multi-task MLP of Fig 2a: it sees one example and no context, so it cannot learn new tasks, only memorise."""

from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models import layers
from gpicl_flax.models.sequence_model import PREDICTIONS, SequenceModel, StateSize


@gin.configurable
class MLP(SequenceModel):
    """Two hidden ReLU layers, then linear to the logits, applied to every input independently.

    Attributes:
      hidden_size: width of both hidden layers, 2..1024 in Fig 2a.
    """

    hidden_size: Width = 1024

    predictable: ClassVar[tuple[str, ...]] = PREDICTIONS
    growing: ClassVar[tuple[str, ...]] = ("hidden_size",)

    def encode(self, inputs: jax.Array, labels: jax.Array, length=None) -> tuple[()]:
        return ()

    def answer(self, context: tuple[()], queries: jax.Array) -> jax.Array:
        return self(queries, None)

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        return StateSize(paper=0, exact=0)

    @nn.compact
    def __call__(self, inputs: jax.Array, labels: jax.Array | None) -> jax.Array:
        """Maps inputs [B, T, X] to logits [B, T, C]. The labels are not read."""
        x = layers.input_mlp(inputs.astype(jnp.float32), self.hidden_size, dtype=self.dtype)
        return layers.logits(x, self.num_outputs)
