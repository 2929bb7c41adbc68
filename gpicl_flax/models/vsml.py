"""VSML, the in-context learner with shared parameters that the paper compares with (Table 2), and deep (Fig 21)."""

from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Layers, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import recurrence, vsml_layer
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import StatefulModel, StateSize


@gin.configurable
class VSML(StatefulModel):
    """Layers of LSTM cells with shared parameters.

    The first layer has a row for each input feature, the last a column for each class.

    Its predictions do not change when input features are permuted, and permute with the classes. Its number of
    parameters depends neither on X nor on C: it is 2,512 for the paper's single layer.

    Attributes:
      num_layers: 1 in Table 2, 1 to 4 in Fig 21. If there are several, each layer reads, in addition to its own
        messages, the forward messages of the previous layer and the backward messages that the next one sent at the
        previous example. Inputs at both ends are padded to the size of a message.
      layer_size: rows of each layer but the first; the paper does not state how many. Because the state begins at zero,
        the rows of a layer stay equal, and predictions do not depend on their number.
      hidden_size: H, the size of a cell.
      message_size: M, numbers of a message.
      micro_ticks: updates of the cells for each example.
    """

    num_layers: Layers = 1
    layer_size: Width = 1
    hidden_size: Width = 16
    message_size: Width = 8
    micro_ticks: Layers = 2

    growing: ClassVar[tuple[str, ...]] = ("hidden_size",)

    def __post_init__(self):
        super().__post_init__()
        row_inputs = 2 if self.token_layout == "aligned" else 1
        if self.num_layers > 1 and self.message_size < row_inputs:
            raise UsageError(
                f"VSML.message_size = {self.message_size} is less than the {row_inputs} inputs of a row in the aligned "
                "token layout, which several layers pad to the size of a message"
            )

    def _grids(self, num_features: int) -> list[tuple[int, int]]:
        """Returns the rows and columns of each layer."""
        sizes = [num_features, *[self.layer_size] * (self.num_layers - 1), self.num_classes]
        return list(zip(sizes[:-1], sizes[1:], strict=True))

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        grids = self._grids(num_features)
        return StateSize(
            paper=sum(rows * columns * self.hidden_size for rows, columns in grids),
            exact=sum(vsml_layer.state_size(self.hidden_size, self.message_size, *grid) for grid in grids),
        )

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        *examples, previous_labels = parts
        batch, _, num_features = examples[0].shape
        # [T, B, X or C, features of a row or column]
        row_inputs = jnp.stack(examples, axis=-1).swapaxes(0, 1)
        column_inputs = previous_labels.swapaxes(0, 1)[..., None]
        sizes = len(examples), 1
        if self.num_layers > 1:
            row_inputs, column_inputs = self._padded(row_inputs), self._padded(column_inputs)
            sizes = self.message_size, self.message_size
        layers = [
            vsml_layer.VSMLWeights(self.hidden_size, self.message_size, self.width_ratio, name=f"layer_{i}")(*sizes)
            for i in range(self.num_layers)
        ]
        states = [
            vsml_layer.initial_state(weights, batch, *grid)
            for weights, grid in zip(layers, self._grids(num_features), strict=True)
        ]

        # The backward pass keeps only a state of X C H numbers for each position. The rest is recomputed.
        @jax.checkpoint
        def step(states, example):
            forward, last_backward = example
            backwards = [*(state.backward for state in states[1:]), last_backward]
            new_states = []
            for weights, state, backward in zip(layers, states, backwards, strict=True):
                state = vsml_layer.update(
                    weights, state, forward, backward, micro_ticks=self.micro_ticks, backward_dtype=self.dtype
                )
                new_states.append(state)
                forward = state.forward
            return new_states, forward[..., 0]

        logits, state = recurrence.run(step, states, (row_inputs, column_inputs), over)
        return logits.swapaxes(0, 1), state

    def _padded(self, x: jax.Array) -> jax.Array:
        """Pads x [..., n] to [..., message_size] with zeros."""
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.message_size - x.shape[-1])))
