"""Softmax attention to the past or a window of it, in forms for sequences and for queries after a context."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpicl_flax.models import fused_attention


def causal_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Computes causal attention for queries, keys and values [B, T, heads, key size].

    On CPU it takes few passes, and on a GPU one kernel where that exists (see `fused_attention`).
    """
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    branches = {"cpu": attention_in_few_passes} | _fused_branch(query)
    return jax.lax.platform_dependent(query, key, value, **branches, default=library)


def _fused_branch(query: jax.Array, window: tuple[int, int] | None = None) -> dict[str, Callable[..., jax.Array]]:
    """Returns {'cuda': the fused kernel}, or {} where there is none: without cuDNN it cannot even be traced."""
    implementation = fused_attention.chosen(query)
    if implementation is None:
        return {}
    settings = {"is_causal": True, "local_window_size": window, "implementation": implementation}
    return {"cuda": functools.partial(jax.nn.dot_product_attention, **settings)}


def attention_weights(query: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the weights [B, heads, T, T] of causal attention for queries and keys [B, T, heads, key size].

    Row t has the attention of position t.
    """
    length, key_size = query.shape[1], query.shape[-1]
    logits = jnp.einsum("btnk,bsnk->bnts", query, key) / key_size**0.5
    return jax.nn.softmax(jnp.where(jnp.tri(length, dtype=bool), logits, -jnp.inf), axis=-1)


def attention_in_few_passes(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Computes the same on CPU, where passes over the T^2 weights cost as much as the products.

    Scaling the queries and dividing the outputs, instead of all weights, saves passes. Adding the mask saves one in its
    gradient.
    """
    length, key_size = query.shape[1], query.shape[3]
    query, key, value = (x.swapaxes(1, 2) for x in (query * key_size**-0.5, key, value))
    mask = jnp.where(jnp.tri(length, dtype=bool), 0, -jnp.inf)
    logits = jnp.einsum("bntk,bnsk->bnts", query, key, preferred_element_type=jnp.float32) + mask
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    y = jnp.einsum("bnts,bnsk->bntk", weights.astype(value.dtype), value) / total.astype(value.dtype)
    return y.swapaxes(1, 2)


def attention_to_context(query, key, value, context_key, context_value, length) -> jax.Array:
    """Computes attention of each of Q queries [B, Q, heads, key size] to a context, and to its own key and value.

    The context is the first `length` positions of context_key, context_value [B, T, heads, key size].
    """
    query = query * query.shape[-1] ** -0.5
    to_context = jnp.einsum("bqnk,btnk->bqnt", query, context_key, preferred_element_type=jnp.float32)
    to_context = jnp.where(jnp.arange(context_key.shape[1]) < length, to_context, -jnp.inf)
    to_itself = jnp.einsum("bqnk,bqnk->bqn", query, key, preferred_element_type=jnp.float32)[..., None]
    weights = jax.nn.softmax(jnp.concatenate([to_itself, to_context], axis=-1)).astype(value.dtype)
    return weights[..., :1] * value + jnp.einsum("bqnt,btnk->bqnk", weights[..., 1:], context_value)


def windowed_attention(query: jax.Array, key: jax.Array, value: jax.Array, *, window: int) -> jax.Array:
    """Computes attention of [B, T, H, K] to itself and the `window` positions before, in time linear in T.

    On a GPU it is one kernel where that exists (see `fused_attention`).
    """
    blocks = functools.partial(attention_in_blocks, window=window)
    branches = _fused_branch(query, (window, 0) if window < query.shape[1] else None)
    return (
        jax.lax.platform_dependent(query, key, value, **branches, default=blocks)
        if branches
        else blocks(query, key, value)
    )


def attention_in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, *, window: int) -> jax.Array:
    """Computes the same in products of blocks.

    Positions form blocks of `window`: those of a block attend to it and to the one before it.
    """
    length = query.shape[1]
    size = min(window, length)

    def blocks(x):  # [B, blocks, size, H, K]
        x = jnp.pad(x, ((0, 0), (0, -length % size), (0, 0), (0, 0)))
        return x.reshape(x.shape[0], -1, size, *x.shape[2:])

    def with_previous(x):  # [B, blocks, 2 size, H, K]
        return jnp.concatenate([jnp.pad(x, ((0, 0), (1, 0), *[(0, 0)] * 3))[:, :-1], x], axis=2)

    query, key, value = blocks(query), with_previous(blocks(key)), with_previous(blocks(value))
    distance = size + jnp.arange(size)[:, None] - jnp.arange(2 * size)
    exists = jnp.arange(query.shape[1])[:, None, None, None] * size + jnp.arange(2 * size) >= size
    is_seen = (distance >= 0) & (distance <= window) & exists  # [blocks, 1, size, 2 size]
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bnqhk,bnshk->bnhqs", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(is_seen, logits, -jnp.inf)).astype(value.dtype)
    y = jnp.einsum("bnhqs,bnshk->bnqhk", weights, value)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :length]
