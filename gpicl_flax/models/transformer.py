"""The paper's causal Transformer (Section 3.2; architecture and initialisers as in the authors' code)."""

import functools

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Layers, Number, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.passes import Pass, Queries, Step
from gpicl_flax.models.sequence_model import StatefulModel, StateSize, sow_query_key

_OTHER_SCALE = 0.1  # for queries and keys of a matched block that do not match: at first they attend almost uniformly


@gin.configurable
class Transformer(StatefulModel):
    """A pre-layer-norm causal Transformer with learned positions; the defaults are the paper's.

    Attributes:
      num_layers: blocks of self-attention and MLP.
      num_heads, key_size: the number of attention heads and the size of each one's keys, queries and values; their
        product need not be the model size.
      model_size: width of the residual stream.
      mlp_ratio: width of the MLP's hidden layer over the model size.
      max_length: T_max, the number of learned positions.
      matching_gain: if set, start from the matching initialisation (see `matching.query_key`) with this gain; needs the
        'aligned' token layout. None, as in the paper, turns it off.
      matching_heads: heads of a matched block that start matched.
      matching_layers: the number of first blocks that start matched.
    """

    num_layers: Layers = 4
    num_heads: Width = 8
    key_size: Width = 32
    model_size: Width = 256
    mlp_ratio: Width = 4
    max_length: Width = 100
    matching_gain: Number | None = None
    matching_heads: int = 1
    matching_layers: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.matching_gain is not None:
            query_key.check_model(self, "matching_gain")

    @property
    def max_sequence_length(self) -> int:
        return self.max_length

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        paper = self.key_size * self.num_layers * sequence_length
        return StateSize(paper=paper, exact=2 * self.num_heads * paper)

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        # There are at most max_length tokens. The state is the keys and values of every block.
        scaled = initializers.scaled_by_depth(self.num_layers)
        embedding_init = initializers.fan_in_truncated_normal()
        query_init = key_init = scaled
        if self.matching_gain is not None:
            embedding_init = query_key.embedding(embedding_init, parts[0].shape[-1])
            heads = query_key.MatchedHeads(self.matching_gain, self.matching_heads, self.key_size, _OTHER_SCALE)
            query_init, key_init = heads.query(scaled), heads.key(scaled)

        x = layers.linear(self.model_size, ("token", "embed"), "embedding", dtype=self.dtype, init=embedding_init)(
            jnp.concatenate(parts, -1)
        )
        positions = self.param(
            "positions",
            initializers.partitioned(nn.initializers.truncated_normal(0.1), ("position", "embed")),
            (self.max_length, self.model_size),
        )
        own = positions[over.length] if isinstance(over, Queries | Step) else positions[: x.shape[1]]
        x = x + own.astype(x.dtype)
        keys_and_values = []
        for layer in range(self.num_layers):
            x, cache = Block(
                num_heads=self.num_heads,
                key_size=self.key_size,
                mlp_ratio=self.mlp_ratio,
                kernel_init=scaled,
                query_init=query_init if layer < self.matching_layers else scaled,
                key_init=key_init if layer < self.matching_layers else scaled,
                dtype=self.dtype,
                name=f"block_{layer}",
            )(x, over, layer)
            keys_and_values.append(cache)
        logits = layers.logits(layers.layer_norm("final_norm", dtype=self.dtype)(x), self.num_classes)
        return logits, keys_and_values


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), for x [B, T, model size]; also returns its keys and values.

    After a state, which has the keys and values of all layers, every position attends to those of its own layer and to
    itself.
    """

    num_heads: int
    key_size: int
    mlp_ratio: int
    kernel_init: Initializer
    query_init: Initializer
    key_init: Initializer
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass, layer: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        heads = (self.num_heads, self.key_size)
        y = layers.layer_norm("attention_norm", dtype=self.dtype)(x)
        query, key, value = (
            layers.linear(heads, ("embed", "heads", "kv"), name, dtype=self.dtype, init=init)(y)
            for name, init in (("query", self.query_init), ("key", self.key_init), ("value", self.kernel_init))
        )
        sow_query_key(self, "attention", query, key)
        if isinstance(over, Queries | Step):
            cache = over.state[layer]
            if isinstance(over, Step) and isinstance(over.length, int) and over.length >= cache[0].shape[1]:
                raise UsageError(f"the state has room for {cache[0].shape[1]} tokens and holds {over.length}")
            y = attention_to_context(query, key, value, cache[0], cache[1], over.length)
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(kept, new, over.length, 1) if isinstance(over, Step) else kept
                for kept, new in zip(cache, (key, value), strict=True)
            )
        else:
            y = causal_attention(query, key, value)
        x = x + layers.linear(
            x.shape[-1],
            ("heads", "kv", "embed"),
            "attention_output",
            dtype=self.dtype,
            init=self.kernel_init,
            num_input_axes=2,
        )(y)
        return layers.mlp_block(x, ratio=self.mlp_ratio, init=self.kernel_init, dtype=self.dtype), (key, value)


def causal_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Computes causal attention for queries, keys and values [B, T, heads, key size]. On CPU it takes few passes."""
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    return jax.lax.platform_dependent(query, key, value, cpu=attention_in_few_passes, default=library)


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
