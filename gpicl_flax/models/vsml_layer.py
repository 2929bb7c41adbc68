"""A layer of Variable Shared Meta Learning (Kirsch & Schmidhuber, 2021): a grid of LSTM cells that share parameters.

The cell in row a and column b of an N x C grid reads the input of its row, u_a, and the input of its column, v_b. All
cells of a row send one backward message, and all cells of a column one forward message: the means of their outputs.
"""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models import initializers
from gpicl_flax.models.products import product
from gpicl_flax.models.recurrence import lstm_cell


class LayerState(NamedTuple):
    """The memory of a layer for B sequences: H units a cell, M numbers a message; zero before the first example.

    Attributes:
      hidden, cell: [B, C, N, H].
      forward: messages of the columns, [B, C, M].
      backward: messages of the rows, [B, N, M].
    """

    hidden: jax.Array
    cell: jax.Array
    forward: jax.Array
    backward: jax.Array


class LayerWeights(flax.struct.PyTreeNode):
    """The parameters that all cells of a layer share.

    Attributes:
      row: [M + P, 4 H], of u = backward message and the row's P inputs.
      column: [M + Q, 4 H], of v = forward message and the column's Q inputs.
      recurrent: [H, 4 H]; gates are input, candidate, forget, output.
      bias: [4 H].
      forward, backward: (kernel [H, M], bias [M]) of the messages.
    """

    row: jax.Array
    column: jax.Array
    recurrent: jax.Array
    bias: jax.Array
    forward: tuple[jax.Array, jax.Array]
    backward: tuple[jax.Array, jax.Array]


class VSMLWeights(nn.Module):
    """Creates the parameters of a layer whose rows have P inputs and whose columns have Q, and returns them.

    Attributes:
      hidden_size: H.
      message_size: M.
      width_ratio: H over the one at the base width, see `models.scaling`.
    """

    hidden_size: int
    message_size: int
    width_ratio: float

    @nn.compact
    def __call__(self, row_inputs: int, column_inputs: int) -> LayerWeights:
        hidden, message = self.hidden_size, self.message_size
        # All gates share the fan-in of all that they read. At another width it is that of the base for what does not
        # grow, the inputs and messages, and that times the ratio for what does.
        fan_in = 2 * message + row_inputs + column_inputs + round(hidden / self.width_ratio)

        def kernel(name, rows, columns, fan_in):
            init = initializers.partitioned(initializers.fan_in_truncated_normal(fan_in), (None, None))
            return self.param(name, init, (rows, columns))

        def bias(name, size):
            init = initializers.partitioned(nn.initializers.zeros, (None,))
            return self.param(name, init, (size,))

        return LayerWeights(
            row=kernel("gates_row", message + row_inputs, 4 * hidden, fan_in),
            column=kernel("gates_column", message + column_inputs, 4 * hidden, fan_in),
            recurrent=kernel("gates_recurrent", hidden, 4 * hidden, fan_in * self.width_ratio),
            bias=bias("gates_bias", 4 * hidden),
            forward=(kernel("forward_kernel", hidden, message, hidden), bias("forward_bias", message)),
            backward=(kernel("backward_kernel", hidden, message, hidden), bias("backward_bias", message)),
        )


def initial_state(weights: LayerWeights, batch: int, rows: int, columns: int) -> LayerState:
    """Returns the state before the first example of a grid of N = `rows` and C = `columns`."""
    hidden, message = weights.forward[0].shape
    zeros = functools.partial(jnp.zeros, dtype=weights.bias.dtype)
    grid = zeros((batch, columns, rows, hidden))
    return LayerState(grid, grid, zeros((batch, columns, message)), zeros((batch, rows, message)))


def update(
    weights: LayerWeights,
    state: LayerState,
    row_inputs: jax.Array,
    column_inputs: jax.Array,
    *,
    micro_ticks: int,
    backward_dtype: str,
) -> LayerState:
    """Processes one example: `micro_ticks` updates of all cells with the same u and v, then new messages.

    Args:
      weights: those of the layer.
      state: the state before the example.
      row_inputs: [B, N, P].
      column_inputs: [B, C, Q].
      micro_ticks: the number of updates.
      backward_dtype: the type that gradients of the kernels of rows round to (see `models.products`).
    """
    hidden, cell, forward, backward = state
    # The pre-activation is the sum of a part for each row and one for each column, so no [.., C, N] array of u and v is
    # made.
    rows = product(jnp.concatenate([backward, row_inputs], axis=-1), weights.row, backward_dtype)
    # In gradients of the other kernels, the terms of the columns almost cancel, because those of all logits do.
    columns = jnp.concatenate([forward, column_inputs], axis=-1) @ weights.column + weights.bias
    for _ in range(micro_ticks):
        gates = hidden @ weights.recurrent + rows[:, None, :, :] + columns[:, :, None, :]
        hidden, cell = lstm_cell(gates, cell)
    return LayerState(
        hidden,
        cell,
        forward=_message(weights.forward, hidden.mean(axis=2), "float32"),
        backward=_message(weights.backward, hidden.mean(axis=1), backward_dtype),
    )


def state_size(hidden_size: int, message_size: int, rows: int, columns: int) -> int:
    """Returns the number of values in a `LayerState` of one sequence."""
    return 2 * hidden_size * rows * columns + message_size * (rows + columns)


def _message(weights: tuple[jax.Array, jax.Array], mean: jax.Array, backward_dtype: str) -> jax.Array:
    """Maps the mean [B, n, H] of what the cells hold to messages [B, n, M]."""
    kernel, bias = weights
    return product(mean, kernel, backward_dtype) + bias
