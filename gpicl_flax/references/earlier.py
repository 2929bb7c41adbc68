"""Sums over the positions before each one, in full precision also where the default of an accelerator is less."""

import functools

import jax
import jax.numpy as jnp

einsum = functools.partial(jnp.einsum, precision="highest")


def weigh_earlier(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Returns sum_{s < t} weights[t, s] values[s] for weights [B, T, T] and values [B, T] or [B, T, C]."""
    return einsum("bts,bs...->bt...", jnp.tril(weights, -1), values.astype(weights.dtype))


def sum_earlier(values: jax.Array) -> jax.Array:
    """Returns the sums over the positions before each one, along axis 1: sum_{s < t} values[:, s].

    The value at t itself is left out from the start, rather than subtracted, which would round away smaller ones.
    """
    shifted = jnp.concatenate([jnp.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
    return jnp.cumsum(shifted, axis=1)
