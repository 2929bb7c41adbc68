"""Measures what a model's queries and keys compare: does it look for the examples that help?

To learn a task from context, a model has to find, for the present input, the labels of similar inputs. In both token
layouts token i contains the label y_{i-1}. So the relevant comparison is that of the query of token t with the key of
token i, for i in 1..t.

Queries and keys are [B, T, heads, key size], inputs [B, T, X], labels [B, T]. The results are one number for each head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.models.attention import attention_weights


class AttentionMass(NamedTuple):
    """Fractions of the attention, averaged over sequences and the second half of their positions.

    Attributes:
      same_class: [heads], the attention on tokens with the label of the present input.
      previous_token: [heads], the attention on the previous token.
      same_class_uniform: [], the attention that tokens with the label would get if it were uniform.
    """

    same_class: jax.Array
    previous_token: jax.Array
    same_class_uniform: jax.Array


def matching_score(query: jax.Array, key: jax.Array, inputs: jax.Array) -> jax.Array:
    """Returns how well products of queries and keys follow products of inputs, in [0, 1].

    It is the correlation of q_t . k_i with x_t . x_{i-1}, pooled over positions and sequences, or 0 where that is
    negative. From both products, the mean over the examples i = 1..t is subtracted, because attention does not depend
    on it. So a head that looks away from similar inputs scores 0, and its `same_class` attention is below the uniform
    one.
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
    """Returns how causal attention with these queries and keys is distributed."""
    length = query.shape[1]
    weights = attention_weights(query, key)
    same = (labels[:, :, None] == jnp.roll(labels, 1, axis=1)[:, None, :]) & jnp.tri(length, dtype=bool)
    same = same.at[:, :, 0].set(False)  # the first token contains no label
    late = slice(length // 2, None)
    previous = jnp.eye(length, k=-1, dtype=bool)

    def share(mask):
        return jnp.where(mask, weights, 0).sum(axis=-1)[..., late].mean(axis=(0, 2))

    uniform = same.sum(axis=-1) / jnp.arange(1, length + 1)
    return AttentionMass(share(same[:, None]), share(previous), uniform[:, late].mean())
