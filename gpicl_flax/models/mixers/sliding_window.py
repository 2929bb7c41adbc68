"""Attention to a window of the last tokens, with rotary positions, as in Mistral (Jiang et al., 2023)."""

from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models.attention import attention_to_context, windowed_attention
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
        if self.query_scale != 1:
            query = query * self.query_scale
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


def _last_rows(x: jax.Array, length: int | jax.Array, rows: int) -> jax.Array:
    """Returns the last `rows` of the first `length` positions of x [B, T, H, K], that of position p in row p mod rows.

    Rows that have no position are zeros.
    """
    position = length - 1 - (length - 1 - jnp.arange(rows)) % rows
    return jnp.where((position >= 0)[:, None, None], x[:, jnp.maximum(position, 0)], 0)
