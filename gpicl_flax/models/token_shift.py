"""The token shift of RWKV: what a layer sees of a position is a mixture of its token and the one before."""

import jax
import jax.numpy as jnp

from gpicl_flax.models.passes import Pass, Prefill, Queries, Step


def previous(x: jax.Array, over: Pass) -> tuple[jax.Array, jax.Array]:
    """Returns the token before each of x [B, T, d], which is zero before the first, and the last token [B, d].

    The last token that counts is the state: d numbers.
    """
    if isinstance(over, Queries):
        return jnp.broadcast_to(over.state[:, None], x.shape), over.state
    before = over.state if isinstance(over, Step) else jnp.zeros_like(x[:, 0])
    tokens = jnp.concatenate([before[:, None], x], axis=1)
    counted = over.length if isinstance(over, Prefill) else x.shape[1]
    return tokens[:, :-1], tokens[:, counted]
