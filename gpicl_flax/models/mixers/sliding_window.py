"""Attention to a window of the last tokens, with rotary positions, as in Mistral (Jiang et al., 2023)."""

from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models.attention import attention_to_context
from gpicl_flax.models.backbone import Backbone
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step, positions
from gpicl_flax.models.rotary import rotate
from gpicl_flax.models.sequence_model import StateSize, sow_query_key


@gin.configurable
class SlidingWindowTransformer(Backbone):
    """The backbone with softmax attention to a window. It reads sequences of any length.

    Attributes:
      window: w, the tokens before a position that it attends to, beside itself.
    """

    window: Width = 32

    @property
    def compute_dtype(self) -> str:
        return self.dtype

    def mixer(self, layer: int) -> Mixer:
        return WindowAttention(**self.mixer_settings(layer), window=self.window)


class WindowAttention(Mixer):
    """Softmax attention to itself and to the `window` tokens before, with rotary positions.

    The state is the keys and values [B, min(w, T), H, K] of these tokens; that of position p is in row p mod w.
    """

    window: int

    def state_size(self, sequence_length: int) -> StateSize:
        paper = self.key_size * min(self.window, sequence_length)
        return StateSize(paper=paper, exact=2 * self.num_heads * paper + self.convolution_size)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        own = positions(over, x.shape[1])
        query, key = rotate(query, own), rotate(key, own)
        sow_query_key(self, "memory", query, key)  # and not 'attention', which says that it is to the whole past
        if isinstance(over, Queries | Step):
            keys, values = over.state["keys"], over.state["values"]
            rows = keys.shape[1]
            if isinstance(over, Step) and isinstance(over.length, int) and over.length >= rows != self.window:
                raise UsageError(f"the state has room for {rows} tokens and holds {over.length}")
            y = attention_to_context(query, key, value, keys, values, over.length)
            if isinstance(over, Step):
                row = over.length % rows
                keys, values = (
                    jax.lax.dynamic_update_slice_in_dim(old, new, row, 1) for old, new in ((keys, key), (values, value))
                )
        else:
            y = windowed_attention(query, key, value, window=self.window)
            length = over.length if isinstance(over, Prefill) else x.shape[1]
            keys, values = (_last_rows(array, length, min(self.window, x.shape[1])) for array in (key, value))
        return self.output(y, x.shape[-1]), kept | {"keys": keys, "values": values}


def windowed_attention(query: jax.Array, key: jax.Array, value: jax.Array, *, window: int) -> jax.Array:
    """Computes attention of [B, T, H, K] to itself and the `window` positions before, in time linear in T.

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


def _last_rows(x: jax.Array, length: int | jax.Array, rows: int) -> jax.Array:
    """Returns the last `rows` of the first `length` positions of x [B, T, H, K], that of position p in row p mod rows.

    Rows that have no position are zeros.
    """
    position = length - 1 - (length - 1 - jnp.arange(rows)) % rows
    return jnp.where((position >= 0)[:, None, None], x[:, jnp.maximum(position, 0)], 0)
