"""The paper's outer-product LSTM (Fig 6, Appendix A.3): an LSTM whose cell is a matrix, written by outer products."""

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.errors import check_positive_integers
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.recurrence import recur, sigmoid
from gpicl_flax.models.sequence_model import InContextModel, StateSize


@gin.configurable
class OuterProductLSTM(InContextModel):
    """Linear-relu-linear-relu, then an outer-product LSTM cell, then linear to the logits.

    Attributes:
      size: s; every head has a cell of s x s numbers. Also, as in the authors' code, the width of the MLP.
      num_heads: m.
    """

    size: int = 32
    num_heads: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_positive_integers(self, "size", "num_heads")

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        cells = self.num_heads * self.size**2
        return StateSize(paper=cells, exact=cells + self.num_heads * self.size)

    @nn.compact
    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]."""
        size, heads = self.size, self.num_heads
        x = layers.input_mlp(self.tokens(inputs, labels), size, dtype=self.dtype)
        init = initializers.fan_in_truncated_normal(size + heads * size)
        gates = layers.linear(heads * 8 * size, ("hidden", "gates"), "gates_input", dtype=self.dtype, init=init)(x)
        gates = gates.swapaxes(0, 1)  # here, since a layer merges the first two axes, of which a mesh divides B
        kernel = self.param(
            "gates_recurrent", nn.with_logical_partitioning(init, ("hidden", "gates")), (heads * size, heads * 8 * size)
        )
        key_scale = nn.softplus(self.param("key_scale", nn.initializers.zeros, ()))
        cell = jnp.zeros((len(inputs), heads, size, size), gates.dtype)
        # One for each sequence, so that on a mesh its gradient is summed once, and not at every position.
        key_scale = jnp.broadcast_to(key_scale.astype(gates.dtype), (len(inputs), 1, 1, 1))
        hidden = recur(_cell, key_scale, kernel.astype(gates.dtype), gates, cell)
        return layers.logits(hidden.swapaxes(0, 1), self.num_classes)


def _cell(key_scale: jax.Array, gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """gates [B, m 8 s] and cell [B, m, s, s] -> hidden [B, m s], cell [B, m, s, s].

    Each head's 8 s gates are three row keys, three column keys (of input gate, candidate, forget gate), a query and an
    output gate.
    """
    batch, heads, size, _ = cell.shape
    keys, query, output = jnp.split(gates.reshape(batch, heads, 8, size), (6, 7), axis=2)
    keys = jnp.tanh(keys)
    rows, columns = keys[:, :, :3] * key_scale, keys[:, :, 3:]
    input_gate, candidate, forget = jnp.einsum("bmgi,bmgj->gbmij", rows, columns)
    cell = sigmoid(forget + 1) * cell + sigmoid(input_gate) * candidate
    read = jnp.einsum("bmij,bmi->bmj", cell, query[:, :, 0])
    hidden = sigmoid(output[:, :, 0]) * jnp.tanh(read)
    return hidden.reshape(batch, heads * size), cell
