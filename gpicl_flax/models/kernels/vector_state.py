"""A state of one number a channel that decays and is added to: h_t = a_t h_{t-1} + x_t.

The real-gated linear recurrent unit (De et al., 2024) is one. All functions take x [B, T, D], log_decay = ln a, at most
0, of the same shape, and h_0 [B, D], by default zero; they compute in float32 or, if x is that, float64.
"""

import jax
import jax.numpy as jnp


def recurrent(x: jax.Array, log_decay: jax.Array, state: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Computes step by step. Returns h [B, T, D], of the type of x, and h_T [B, D]."""
    written, log_decay, state = _prepare(x, log_decay, state)

    def step(state, position):
        written, log_decay = position
        state = decayed(state, log_decay) + written
        return state, state

    state, states = jax.lax.scan(step, state, (written.swapaxes(0, 1), log_decay.swapaxes(0, 1)))
    return states.swapaxes(0, 1).astype(x.dtype), state


def parallel(x: jax.Array, log_decay: jax.Array, state: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Computes in about 2 log2 T steps, each over all positions of a level. Returns h [B, T, D] and h_T [B, D]."""
    written, log_decay, state = _prepare(x, log_decay, state)

    def after(first, second):
        return first[0] + second[0], jnp.exp(second[0]) * first[1] + second[1]

    written = written.at[:, 0].add(jnp.exp(log_decay[:, 0]) * state)
    _, states = jax.lax.associative_scan(after, (log_decay, written), axis=1)
    return states.astype(x.dtype), states[:, -1]


def each(x: jax.Array, log_decay: jax.Array, state: jax.Array) -> jax.Array:
    """Computes every position as the next one after `state`. Returns h [B, T, D], of the type of x."""
    written, log_decay, state = _prepare(x, log_decay, state)
    return (jnp.exp(log_decay) * state[:, None] + written).astype(x.dtype)


def decayed(state: jax.Array, log_decay: jax.Array) -> jax.Array:
    """Returns exp(log_decay) * state for one of many steps.

    A slow decay is rounded to a multiple of 6e-8, always in the same direction if it is constant: after 2,048 steps up
    to 3e-5 of the state. What it takes off the state has no such error.
    """
    slow = log_decay > -0.5
    change = jnp.where(slow, jnp.expm1(log_decay), jnp.exp(log_decay))
    return jnp.where(slow, state, 0) + change * state


def _prepare(x, log_decay, state):
    exact = jnp.promote_types(x.dtype, jnp.float32)
    if state is None:
        state = jnp.zeros((x.shape[0], x.shape[-1]), exact)
    return x.astype(exact), log_decay.astype(exact), state.astype(exact)
