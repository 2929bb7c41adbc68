"""Kimi Delta Attention (Kimi Linear, 2025): the gated delta rule, where every key dimension forgets at its own rate."""

import math
from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import sow_query_key

_SLOWEST_LOG_RATE, _SLOWEST_BIAS = 0.0, math.log(math.expm1(1e-3))  # a matched head forgets 0.1% at each position


@gin.configurable
class KDA(MatchableBackbone, MatrixBackbone):
    """The backbone with Kimi Delta Attention.

    It differs from the paper in the short convolutions, which are a switch here, and in biases of all layers but those
    of low rank. The paper mixes its blocks with ones of attention. Except for heads that start matched, memory is short
    at first: the median rate forgets 99.7% at each position.
    """

    chunk_size: Width = matrix_state.KEY_DECAY_CHUNK_SIZE

    def mixer(self, layer: int) -> MatrixMemory:
        return KimiDeltaRule(**self.mixer_settings(layer))


class KimiDeltaRule(MatrixMemory):
    """S_t = diag(a_t) S_{t-1} + k_t u_t^T, u_t = b_t (v_t - (diag(a_t) S_{t-1})^T k_t), o_t = S_t^T q_t / sqrt(K).

    The decay a_t, a number for each key dimension, and the writing strength b_t depend on the token. Queries, keys and
    values pass through SiLU, and queries and keys then have length one. A norm of each head and a sigmoid gate follow.
    The layers of the decay and of the gate have the rank V.
    """

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        query, key, value = layers.unit_length(nn.silu(query)), layers.unit_length(nn.silu(key)), nn.silu(value)
        sow_query_key(self, "memory", query, key)
        strength = nn.sigmoid(layers.linear(self.num_heads, ("embed", "heads"), "strength", dtype="float32")(x))
        strength, log_decay = strength[..., None], self._log_decay(x)
        recall = strength * jnp.exp(log_decay) * key  # what the decayed memory has for the key
        scaled = query * self.logit_scale
        read, memory = self.remember(over, scaled, key, strength * value, log_decay, (None, recall))
        low = self.linear(self.value_size, ("embed", None), "gate_low_rank", use_bias=False)(x)
        gate = self.linear((self.num_heads, self.value_size), (None, "heads", "kv"), "gate")(low)
        read = self.normalized_read(read) * nn.sigmoid(gate)
        return self.output(read, x.shape[-1]), kept | memory

    def _log_decay(self, x: jax.Array) -> jax.Array:
        """Returns ln of the decay, [B, T, H, K]: -rate * softplus(low rank(x) + bias), with a rate for each head.

        A matched head starts with a slow decay, and so keeps the whole context.
        """
        matched = self.matched.num_heads
        rate_init = query_key.first_heads(initializers.log_of_uniform_rate, matched, _SLOWEST_LOG_RATE)
        log_rate = self.param("log_decay_rate", initializers.partitioned(rate_init, ("heads",)), (self.num_heads,))
        low = layers.linear(self.value_size, ("embed", None), "decay_low_rank", dtype="float32", use_bias=False)(x)
        bias_init = query_key.first_heads(nn.initializers.zeros, matched, _SLOWEST_BIAS)
        heads = self.num_heads, self.key_size
        step = layers.linear(heads, (None, "heads", "kv"), "decay", dtype="float32", bias_init=bias_init)(low)
        return -jnp.exp(log_rate)[:, None] * nn.softplus(step)
