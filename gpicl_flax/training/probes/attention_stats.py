"""What a model's queries and keys compare, in numbers: does it look for the examples that help?

A model that learns a task from context has to find, for the present input, the labels of inputs that look like it. In
both token layouts the label y_{i-1} lies in token i, so what matters is how the query of token t compares with the key
of token i, for i in 1..t.

Queries and keys are [B, T, heads, key size], inputs [B, T, X], labels [B, T]; the results are one number a head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.models.transformer import attention_weights


class AttentionMass(NamedTuple):
    """Shares of the attention, averaged over sequences and the second half of their positions.

    Attributes:
      same_class: [heads], that lies on tokens with the label of the present input.
      previous_token: [heads], that lies on the token before.
      same_class_uniform: [], what lay on tokens with the label if attention were uniform.
    """

    same_class: jax.Array
    previous_token: jax.Array
    same_class_uniform: jax.Array


def matching_score(query: jax.Array, key: jax.Array, inputs: jax.Array) -> jax.Array:
    """How well products of queries and keys follow products of inputs, in [0, 1].

    It is the correlation of q_t . k_i with x_t . x_{i-1}, both less their mean over the examples i = 1..t (which
    attention does not see), pooled over positions and sequences; 0 where it is negative. A head that looks away from
    similar inputs so has none; its `same_class` attention is under the uniform one.
    """
    logits = jnp.einsum("btnk,bsnk->nbts", query, key)[..., 1:]
    products = jnp.einsum("btx,bsx->bts", inputs, inputs)[..., :-1]
    length = query.shape[1]
    past = jnp.arange(length)[:, None] > jnp.arange(length - 1)  # [T, T - 1]: example i - 1 is before t
    count = jnp.maximum(past.sum(axis=-1, keepdims=True), 1)

    def centred(x):
        return jnp.where(past, x - jnp.where(past, x, 0).sum(axis=-1, keepdims=True) / count, 0)

    logits, products = centred(logits), centred(products)
    norms = jnp.sqrt((logits**2).sum(axis=(1, 2, 3)) * (products**2).sum())
    correlation = (logits * products).sum(axis=(1, 2, 3)) / jnp.where(norms > 0, norms, 1)
    return jnp.maximum(correlation, 0)


def attention_mass(query: jax.Array, key: jax.Array, labels: jax.Array) -> AttentionMass:
    """Where causal attention with these queries and keys lies."""
    length = query.shape[1]
    weights = attention_weights(query, key)
    same = (labels[:, :, None] == jnp.roll(labels, 1, axis=1)[:, None, :]) & jnp.tri(length, dtype=bool)
    same = same.at[:, :, 0].set(False)  # the first token holds no label
    late = slice(length // 2, None)
    previous = jnp.eye(length, k=-1, dtype=bool)

    def share(of):
        return jnp.where(of, weights, 0).sum(axis=-1)[..., late].mean(axis=(0, 2))

    uniform = same.sum(axis=-1) / jnp.arange(1, length + 1)
    return AttentionMass(share(same[:, None]), share(previous), uniform[:, late].mean())
