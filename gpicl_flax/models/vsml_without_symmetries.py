"""VSML without symmetries (Fig 6, Appendix A.3): VSML's grid between learned projections, so nothing is equivariant."""

import functools
from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Layers, Width
from gpicl_flax.models import layers, recurrence, vsml_layer
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import StatefulModel, StateSize

_ROW_INPUTS, _COLUMN_INPUTS = 16, 4  # as in the authors' code


@gin.configurable
class VSMLWithoutSymmetries(StatefulModel):
    """A k x k grid of LSTM cells with shared parameters.

    Its rows read a projection of the example's inputs, and its columns one of the previous label. Its forward messages
    are projected to the logits.

    Attributes:
      grid_size: k, in 1..24 in Fig 6.
      hidden_size: H, the size of a cell.
      message_size: numbers of a message.
      micro_ticks: updates of the cells for each example.
    """

    grid_size: Width = 8
    hidden_size: Width = 64
    message_size: Width = 8
    micro_ticks: Layers = 2

    growing: ClassVar[tuple[str, ...]] = ("hidden_size",)

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        k = self.grid_size
        return StateSize(
            paper=k**2 * self.hidden_size, exact=vsml_layer.state_size(self.hidden_size, self.message_size, k, k)
        )

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        k = self.grid_size
        *examples, previous_labels = parts
        linear = functools.partial(layers.linear, dtype="float32", backward_dtype=self.dtype)

        def projected(x, features, name):  # [B, T, ...] -> [T, B, k, features]
            return linear((k, features), ("token", None, None), name)(x).swapaxes(0, 1)

        row_inputs = projected(jnp.concatenate(examples, axis=-1), _ROW_INPUTS, "inputs")
        column_inputs = projected(previous_labels, _COLUMN_INPUTS, "labels")
        weights = vsml_layer.VSMLWeights(self.hidden_size, self.message_size, self.width_ratio, name="layer")(
            _ROW_INPUTS, _COLUMN_INPUTS
        )

        @jax.checkpoint
        def step(state, example):
            state = vsml_layer.update(weights, state, *example, micro_ticks=self.micro_ticks, backward_dtype=self.dtype)
            return state, state.forward

        start = vsml_layer.initial_state(weights, len(previous_labels), k, k)
        messages, state = recurrence.run(step, start, (row_inputs, column_inputs), over)
        messages = messages.swapaxes(0, 1)  # [B, T, k, M]
        return layers.logits(messages.reshape(*messages.shape[:2], -1), self.num_classes), state
