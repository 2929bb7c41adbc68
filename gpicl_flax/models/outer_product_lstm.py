"""The paper's outer-product LSTM (Fig 6, Appendix A.3): an LSTM whose cell is a matrix, updated by outer products."""

from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width, check
from gpicl_flax.errors import UsageError
from gpicl_flax.models import initializers, layers, scaling
from gpicl_flax.models.matching import outer_product
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.recurrence import run_cell, sigmoid
from gpicl_flax.models.sequence_model import CLASSES, PREDICTIONS, StatefulModel, StateSize, sow_query_key


@gin.configurable
class OuterProductLSTM(StatefulModel):
    """Linear-relu-linear-relu, then an outer-product LSTM cell, then linear to the logits.

    Attributes:
      size: s; every head has a cell of s x s numbers. As in the authors' code, it is also the width of the MLP.
      num_heads: m.
      matching_heads: heads that start from the matching initialisation (see `matching.outer_product`); needs the
        'aligned' token layout. 0 turns it off.
    """

    size: Width = 32
    num_heads: Width = 1
    matching_heads: int = 0

    predictable: ClassVar[tuple[str, ...]] = PREDICTIONS
    growing: ClassVar[tuple[str, ...]] = ("num_heads",)

    def __post_init__(self):
        super().__post_init__()
        if self.matching_heads != 0:
            if self.parametrization == scaling.MUP:
                raise UsageError(
                    "OuterProductLSTM.matching_heads sets a read-out that 'mup' would scale: leave one of them out"
                )
            check("OuterProductLSTM.matching_heads", self.matching_heads, Width)
            if self.token_layout != "aligned":
                raise UsageError("OuterProductLSTM.matching_heads needs OuterProductLSTM.token_layout = 'aligned'")
            if self.predicts != CLASSES:
                raise UsageError("OuterProductLSTM.matching_heads is for classes, not for numbers: leave it out")
            if self.matching_heads > self.num_heads:
                raise UsageError(
                    f"OuterProductLSTM.matching_heads must be at most num_heads, not {self.matching_heads}"
                )
            self._matched_cell(num_features=1)

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        cells = self.num_heads * self.size**2
        return StateSize(paper=cells, exact=cells + self.num_heads * self.size)

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        size, heads = self.size, self.num_heads
        inits = self._inits(parts[0].shape[-1])
        x = layers.input_mlp(
            jnp.concatenate(parts, -1), size, dtype=self.dtype, inits=inits.mlp, bias_init=inits.mlp_bias
        )
        gates = layers.linear(
            heads * 8 * size,
            ("hidden", "gates"),
            "gates_input",
            dtype="float32",
            backward_dtype=self.dtype,
            init=inits.gates,
            bias_init=inits.gates_bias,
        )(x)
        # The part of the gates that comes from the inputs. The rest is known only within the recurrence.
        shown = gates.reshape(*gates.shape[:2], heads, 8, size)
        sow_query_key(self, "memory", query=shown[..., 6, :], key=jnp.tanh(shown[..., 1, :]))
        kernel = self.param(
            "gates_recurrent",
            initializers.partitioned(inits.recurrent, ("hidden", "gates")),
            (heads * size, heads * 8 * size),
        )
        key_scale = nn.softplus(self.param("key_scale", inits.key_scale, ()))
        cell = jnp.zeros((len(gates), heads, size, size), gates.dtype)
        # One copy for each sequence, so that on a mesh its gradient is summed once, rather than at every position.
        key_scale = jnp.broadcast_to(key_scale, (len(gates), 1, 1, 1))
        hidden, state = run_cell(_cell, key_scale, kernel, gates, cell, over, self.dtype)
        self.sow("intermediates", "hidden", hidden)
        return layers.logits(hidden, self.num_outputs, init=inits.logits), state

    def _inits(self, num_features: int) -> outer_product.Inits:
        """Returns the initialisers of the parameters for X = num_features: the paper's, or matched ones."""
        zeros, linear = nn.initializers.zeros, initializers.fan_in_truncated_normal()
        # The gates read the MLP, which does not grow with the number of heads, and the hidden vector, which does.
        fan_in = self.size + round(self.num_heads / self.width_ratio) * self.size
        gates, recurrent = map(initializers.fan_in_truncated_normal, (fan_in, fan_in * self.width_ratio))
        paper = outer_product.Inits(
            mlp=(linear, linear),
            mlp_bias=zeros,
            gates=gates,
            gates_bias=zeros,
            recurrent=recurrent,
            key_scale=zeros,
            logits=linear,
        )
        return self._matched_cell(num_features).inits(paper) if self.matching_heads else paper

    def _matched_cell(self, num_features: int) -> outer_product.MatchedCell:
        return outer_product.MatchedCell(num_features, self.num_classes, self.size, self.num_heads, self.matching_heads)


def _cell(key_scale: jax.Array, gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps gates [B, m 8 s] and cell [B, m, s, s] to hidden [B, m s] and cell [B, m, s, s].

    Each head's 8 s gates are three row keys, three column keys (those of input gate, candidate, forget gate), a query
    and an output gate.
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
