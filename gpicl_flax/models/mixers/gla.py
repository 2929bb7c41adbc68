"""Gated linear attention (Yang et al., 2024): a matrix of which every key dimension forgets as the token says."""

import math
from typing import Any

import gin
import jax
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models import layers
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import sow_query_key

_RANK = 16  # of the layer that the decay is computed by
_TEMPERATURE = 16  # alpha = sigmoid(.)^(1 / 16), so that heads forget slowly at first: 4% at each position
_SLOWEST_BIAS = -math.log(math.expm1(1e-3 * _TEMPERATURE))  # with which a matched head forgets 0.1% at each position


@gin.configurable
class GLA(MatchableBackbone, MatrixBackbone):
    """The backbone with gated linear attention.

    By default keys have half the model size over all heads, and values all of it, as in the paper.
    """

    key_size: Width = 16
    chunk_size: Width = matrix_state.KEY_DECAY_CHUNK_SIZE

    @property
    def default_value_size(self) -> int:
        return 2 * self.key_size

    def mixer(self, layer: int) -> MatrixMemory:
        return GatedLinearAttention(**self.mixer_settings(layer))


class GatedLinearAttention(MatrixMemory):
    """S_t = diag(alpha_t) S_{t-1} + k_t v_t^T, read as o_t = S_t^T q_t / sqrt(K).

    A norm of each head and a SiLU gate follow.
    """

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        sow_query_key(self, "memory", query, key)
        heads = self.num_heads, self.key_size
        low = layers.linear(_RANK, ("embed", None), "decay_low_rank", dtype="float32", use_bias=False)(x)
        bias_init = query_key.first_heads(nn.initializers.zeros, self.matched.num_heads, _SLOWEST_BIAS)
        decay = layers.linear(heads, (None, "heads", "kv"), "decay", dtype="float32", bias_init=bias_init)(low)
        log_decay = nn.log_sigmoid(decay) / _TEMPERATURE
        read, memory = self.remember(over, query * self.logit_scale, key, value, log_decay)
        read = self.normalized_read(read) * nn.silu(self.gate(x))
        return self.output(read, x.shape[-1]), kept | memory
