"""The paper's LSTM (Table 2, Fig 6): a two-layer MLP on the tokens, an LSTM cell, a linear read-out."""

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.errors import check_positive_integers
from gpicl_flax.models import initializers
from gpicl_flax.models.sequence_model import SequenceModel, StateSize


@gin.configurable
class LSTM(SequenceModel):
    """Linear-relu-linear-relu, then an LSTM cell whose forget gate has a bias of +1, then linear to the logits.

    Attributes:
      hidden_size: h, of the MLP and the cell.
    """

    hidden_size: int = 256

    def __post_init__(self):
        super().__post_init__()
        check_positive_integers(self, "hidden_size")

    def state_size(self, sequence_length: int) -> StateSize:
        return StateSize(paper=self.hidden_size, exact=2 * self.hidden_size)

    @nn.compact
    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]."""
        x = self.tokens(inputs, labels)
        x = nn.relu(self._linear(self.hidden_size, ("token", "mlp"), "mlp_0", dtype=self.dtype)(x))
        x = nn.relu(self._linear(self.hidden_size, ("mlp", "hidden"), "mlp_1", dtype=self.dtype)(x))
        x = self._cell(x)
        return self._linear(self.num_classes, ("hidden", "classes"), "logits", dtype="float32")(x.astype(jnp.float32))

    def _cell(self, x: jax.Array) -> jax.Array:
        """x [B, T, h] -> the cell's hidden states [B, T, h]."""
        # What the inputs contribute to the gates is one large product for all positions, outside the scan.
        init = initializers.fan_in_truncated_normal(2 * self.hidden_size)
        gates = self._linear(4 * self.hidden_size, ("hidden", "gates"), "gates_input", dtype=self.dtype, init=init)(x)
        recurrent = self.param(
            "gates_recurrent",
            nn.with_logical_partitioning(init, ("hidden", "gates")),
            (self.hidden_size, 4 * self.hidden_size),
        ).astype(self.dtype)

        def step(state, gates_t):
            hidden, cell = state
            input_gate, candidate, forget, output = jnp.split(gates_t + hidden @ recurrent, 4, axis=-1)
            cell = nn.sigmoid(forget + 1) * cell + nn.sigmoid(input_gate) * jnp.tanh(candidate)
            hidden = nn.sigmoid(output) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((x.shape[0], self.hidden_size), gates.dtype)
        _, hidden = jax.lax.scan(step, (zeros, zeros), gates.swapaxes(0, 1))
        return hidden.swapaxes(0, 1)

    def _linear(self, features: int, names: tuple[str, str], name: str, *, dtype: str, init=None) -> nn.Dense:
        return nn.Dense(
            features,
            dtype=dtype,
            kernel_init=nn.with_logical_partitioning(init or initializers.fan_in_truncated_normal(), names),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, names[1:]),
            name=name,
        )
