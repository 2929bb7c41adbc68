"""The paper's causal Transformer (Section 3.2; architecture and initialisers as in the authors' code)."""

from typing import Any, ClassVar

import gin
import jax
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Number, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import initializers
from gpicl_flax.models.attention import attention_to_context, causal_attention
from gpicl_flax.models.backbone import Backbone
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass, Queries, Step
from gpicl_flax.models.sequence_model import StateSize, sow_query_key

_OTHER_SCALE = 0.1  # for queries and keys of a matched block that do not match: at first they attend almost uniformly


@gin.configurable
class Transformer(Backbone):
    """A pre-layer-norm causal Transformer with learned positions; the defaults are the paper's.

    Attributes:
      num_heads, key_size: the number of attention heads and the size of each one's keys, queries and values.
      max_length: T_max, the number of learned positions.
      matching_gain: if set, start from the matching initialisation (see `matching.query_key`) with this gain; needs the
        'aligned' token layout. None, as in the paper, turns it off.
      matching_heads: heads of a matched block that start matched.
      matching_layers: the number of first blocks that start matched.
    """

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

    @property
    def compute_dtype(self) -> str:
        return self.dtype

    def mixer(self, layer: int) -> Mixer:
        settings = self.mixer_settings(layer)
        if self.matching_gain is not None and layer < self.matching_layers:
            settings["matched"] = query_key.MatchedHeads(
                self.matching_gain, self.matching_heads, self.key_size, _OTHER_SCALE
            )
        return SelfAttention(**settings)

    def embedding_init(self, num_features: int) -> Initializer:
        base = super().embedding_init(num_features)
        return base if self.matching_gain is None else query_key.embedding(base, num_features)

    def embed(self, parts: list[jax.Array], over: Pass) -> jax.Array:
        # There are at most max_length tokens.
        x = super().embed(parts, over)
        positions = self.param(
            "positions",
            initializers.partitioned(nn.initializers.truncated_normal(0.1), ("position", "embed")),
            (self.max_length, self.model_size),
        )
        own = positions[over.length] if isinstance(over, Queries | Step) else positions[: x.shape[1]]
        return x + own.astype(x.dtype)


class SelfAttention(Mixer):
    """Causal softmax attention. The state is the keys and values of the past, [B, T, H, K].

    After a state, every position attends to it and to itself.
    """

    norm_name: ClassVar[str] = "attention_norm"
    output_name: ClassVar[str] = "attention_output"

    def state_size(self, sequence_length: int) -> StateSize:
        paper = self.key_size * sequence_length
        return StateSize(paper=paper, exact=2 * self.num_heads * paper + self.convolution_size)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        if self.query_scale != 1:
            query = query * self.query_scale
        sow_query_key(self, "attention", query, key)
        if isinstance(over, Queries | Step):
            keys, values = over.state["keys"], over.state["values"]
            if isinstance(over, Step) and isinstance(over.length, int) and over.length >= keys.shape[1]:
                raise UsageError(f"the state has room for {keys.shape[1]} tokens and holds {over.length}")
            y = attention_to_context(query, key, value, keys, values, over.length)
            if isinstance(over, Step):
                keys, values = (
                    jax.lax.dynamic_update_slice_in_dim(old, new, over.length, 1)
                    for old, new in ((keys, key), (values, value))
                )
        else:
            y = causal_attention(query, key, value)
            keys, values = key, value
        return self.output(y, x.shape[-1]), kept | {"keys": keys, "values": values}
