"""Rotary positions (Su et al., 2021): the product of a query and a key depends on the distance between them."""

import jax
import jax.numpy as jnp

_BASE = 10_000.0


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotates dimension i of x [B, T, H, K] with dimension i + K // 2, by an angle of position x 10000^(-2 i / K).

    Args:
      x: queries or keys. If K is odd, the last dimension stays as it is.
      positions: [T].
    """
    half = x.shape[-1] // 2
    rates = _BASE ** (-jnp.arange(half) / max(half, 1))
    angles = positions[:, None].astype(rates.dtype) * rates  # [T, half]
    sine, cosine = jnp.sin(angles)[:, None].astype(x.dtype), jnp.cos(angles)[:, None].astype(x.dtype)
    first, second, rest = jnp.split(x, [half, 2 * half], axis=-1)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine, rest], axis=-1)
