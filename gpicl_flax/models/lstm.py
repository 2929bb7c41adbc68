"""The paper's LSTM (Table 2, Fig 6): a two-layer MLP on the tokens, an LSTM cell, a linear read-out."""

from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.recurrence import lstm_cell, run_cell
from gpicl_flax.models.sequence_model import PREDICTIONS, StatefulModel, StateSize


@gin.configurable
class LSTM(StatefulModel):
    """Linear-relu-linear-relu, then an LSTM cell whose forget gate has a bias of +1, then linear to the logits.

    Attributes:
      hidden_size: h, the size of the cell.
      mlp_size: width of both layers of the MLP, which is not part of the state; None, as in the authors' code: h.
    """

    hidden_size: Width = 256
    mlp_size: Width | None = None

    predictable: ClassVar[tuple[str, ...]] = PREDICTIONS
    growing: ClassVar[tuple[str, ...]] = ("hidden_size", "mlp_size")

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        return StateSize(paper=self.hidden_size, exact=2 * self.hidden_size)

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        x = layers.input_mlp(jnp.concatenate(parts, -1), self.mlp_size or self.hidden_size, dtype=self.dtype)
        init = initializers.fan_in_truncated_normal(x.shape[-1] + self.hidden_size)
        gates = layers.linear(
            4 * self.hidden_size,
            ("hidden", "gates"),
            "gates_input",
            dtype="float32",
            backward_dtype=self.dtype,
            init=init,
        )(x)
        kernel = self.param(
            "gates_recurrent",
            initializers.partitioned(init, ("hidden", "gates")),
            (self.hidden_size, 4 * self.hidden_size),
        )
        cell = jnp.zeros((len(gates), self.hidden_size), gates.dtype)
        hidden, state = run_cell(lambda _, *args: lstm_cell(*args), (), kernel, gates, cell, over, self.dtype)
        self.sow("intermediates", "hidden", hidden)
        return layers.logits(hidden, self.num_outputs), state
