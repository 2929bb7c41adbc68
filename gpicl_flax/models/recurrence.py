"""A recurrent cell over all positions, with every computation that does not depend on the state outside the scan."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.models.passes import Pass, Prefill, Queries, Step, Whole
from gpicl_flax.models.products import contract


def sigmoid(x: jax.Array) -> jax.Array:
    """Computes the logistic function by tanh. On CPU, where gates cost as much as products, this is twice as fast."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def lstm_cell(gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Makes one step of an LSTM with forget bias +1.

    It maps gates [..., 4 h] (input, candidate, forget, output) and cell [..., h] to hidden and cell [..., h].
    """
    input_gate, candidate, forget, output = jnp.split(gates, 4, axis=-1)
    cell = sigmoid(forget + 1) * cell + sigmoid(input_gate) * jnp.tanh(candidate)
    return sigmoid(output) * jnp.tanh(cell), cell


def run(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, xs: Any, over: Pass) -> tuple[Any, Any]:
    """Applies a recurrent step, (state, x) -> (state, y), to positions in one of the ways of `models.passes`.

    Args:
      step: the recurrent step.
      state: the state before the first position; unused if the pass has its own state.
      xs: a pytree of arrays [T, ...].
      over: the pass.

    Returns:
      y [T, ...], and the state after the last position that counts.
    """
    match over:
        case Whole():
            state, ys = jax.lax.scan(step, state, xs)
        case Prefill(length):
            (state, _), ys = jax.lax.scan(_only_before(length, step), (state, 0), xs)
        case Queries(state):
            ys = jax.vmap(lambda x: step(state, x)[1])(xs)
        case Step(state):
            state, ys = jax.lax.scan(step, state, xs)
    return ys, state


def _only_before(length, step):
    def counted(carry, x):
        state, position = carry
        new, y = step(state, x)
        return (jax.tree.map(lambda new, old: jnp.where(position < length, new, old), new, state), position + 1), y

    return counted


_UNROLL = 4  # positions in one iteration of the loop; on CPU 5 to 10% faster than 1 and 8


class CellState(NamedTuple):
    """The state that `run_cell` leaves.

    Attributes:
      hidden: h [B, H].
      cell: what the cell keeps beside it, a pytree of arrays [B, ...].
    """

    hidden: jax.Array
    cell: Any


# (weights, gates [B, G], state) -> (hidden [B, H], state)
Cell = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 5))
def recur(
    cell: Cell, weights: Any, kernel: jax.Array, gates: jax.Array, state: Any, backward_dtype: str | None = None
) -> jax.Array:
    """Computes h_t, s_t = cell(weights, gates_t + h_{t-1} kernel, s_{t-1}) with h_0 = 0.

    The gradient of the kernel is one product over all positions, rather than a sum that grows within the backward scan.
    On a mesh it is one all-reduce instead of T.

    Args:
      cell: the computation at one position.
      weights: the other inputs of the cell, a pytree.
      kernel: the kernel of the recurrent connection, [H, G].
      gates: the contribution of the inputs, [T, B, G], with positions first, as a scan reads them.
      state: s_0, a pytree.
      backward_dtype: the type that the gradient of the kernel rounds to (see `models.products`); None: to none.

    Returns:
      h [T, B, H].
    """
    return _scan(cell, weights, kernel, gates, state)


def run_cell(
    cell: Cell, weights: Any, kernel: jax.Array, gates: jax.Array, state: Any, over: Pass, backward_dtype: str
) -> tuple[jax.Array, Any]:
    """Maps gates [B, T, G] to h [B, T, H] and the state, hidden and other, by `recur` or, in other passes, by `run`."""
    gates = gates.swapaxes(0, 1)  # here, because the layer before merges the first two axes, and a mesh divides only B
    if isinstance(over, Whole):
        return recur(cell, weights, kernel, gates, state, backward_dtype).swapaxes(0, 1), None
    hidden, state = run(_step(cell, weights, kernel), CellState(_first_hidden(kernel, gates), state), gates, over)
    return hidden.swapaxes(0, 1), state


def _first_hidden(kernel, gates):
    return jnp.zeros((gates.shape[1], kernel.shape[0]), gates.dtype)


def _step(cell, weights, kernel):
    def step(carry, gates_t):
        hidden, state = carry
        hidden, state = cell(weights, gates_t + hidden @ kernel, state)
        return CellState(hidden, state), hidden

    return step


def _scan(cell, weights, kernel, gates, state):
    # The backward pass keeps only the gates and the state of each position and recomputes the rest, which is faster
    # than storing it.
    step = _step(jax.checkpoint(cell), weights, kernel)
    return jax.lax.scan(step, CellState(_first_hidden(kernel, gates), state), gates, unroll=_UNROLL)[1]


def _forward(cell, weights, kernel, gates, state, backward_dtype):
    hidden, backward = jax.vjp(lambda w, g, s: _scan(cell, w, kernel, g, s), weights, gates, state)
    return hidden, (backward, hidden)


def _backward(cell, backward_dtype, residuals, hidden_gradient):
    backward, hidden = residuals
    weights_gradient, gates_gradient, state_gradient = backward(hidden_gradient)
    kernel_gradient = contract("tbh,tbg->hg", hidden[:-1], gates_gradient[1:], backward_dtype)
    return weights_gradient, kernel_gradient, gates_gradient, state_gradient


recur.defvjp(_forward, _backward)
