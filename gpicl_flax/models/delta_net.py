"""Gated DeltaNet: linear attention whose state is a matrix that a delta rule updates. It is not in the paper."""

import math
from typing import Any, ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import sow_query_key

_SLOWEST_LOG_RATE, _SLOWEST_BIAS = 0.0, math.log(math.expm1(1e-3))  # the ends of the distributions


@gin.configurable
class DeltaNet(MatchableBackbone, MatrixBackbone):
    """Pre-layer-norm blocks of a (gated) delta rule and an MLP, on the paper's tokens; no positions.

    The architecture is that of Yang, Kautz, Hatamizadeh (2025), without the SiLU that follows the short convolutions,
    which are a switch. Otherwise it is shaped like the paper's Transformer: the same initialisers, MLP and read-out.
    Each head of a block has a state of key_size x value_size numbers, for any length of the sequence.

    Attributes:
      gated: whether heads forget, at a rate that depends on the token; if not, it is DeltaNet (Yang et al., 2024).
      matching_heads: heads of a matched block that start from the matching initialisation (see `matching.query_key`),
        with little forgetting; needs the 'aligned' token layout. 0 turns it off.
    """

    gated: bool = True
    chunk_size: Width = 16

    def mixer(self, layer: int) -> Mixer:
        return DeltaRule(**self.mixer_settings(layer), gated=self.gated)


class DeltaRule(MatrixMemory):
    """Heads whose matrix a (gated) delta rule writes.

    At every position a head forgets a little, corrects the value that it would recall for the key, and reads:

        S_t = a_t S_{t-1} + k_t u_t^T,   u_t = b_t (v_t - (a_t S_{t-1})^T k_t),   o_t = S_t^T q_t

    with the decay a in (0, 1] and the writing strength b in [0, 1]. With a = 1 it is the delta rule of DeltaNet.
    """

    gated: bool

    norm_name: ClassVar[str] = "delta_norm"
    output_name: ClassVar[str] = "delta_output"

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        strength = nn.sigmoid(layers.linear(self.num_heads, ("embed", "heads"), "strength", dtype="float32")(x))
        log_decay = self._log_decay(x) if self.gated else jnp.zeros_like(strength)
        query, key = layers.unit_length(query), layers.unit_length(key)
        sow_query_key(self, "memory", query, key)
        strength = strength[..., None]
        recall = strength * jnp.exp(log_decay)[..., None] * key  # what the decayed memory has for the key
        read, memory = self.remember(over, query, key, strength * value, log_decay, (None, recall))
        read = self.normalized_read(read, epsilon=1e-6) * nn.silu(self.gate(x))
        return self.output(read, x.shape[-1]), kept | memory

    def _log_decay(self, x: jax.Array) -> jax.Array:
        """Returns ln of the decay, [B, T, heads]: -rate * softplus(linear(x) + bias).

        Rate and bias are initially distributed as in Mamba-2. A matched head starts with the slowest decay, about 0.15%
        at each position, and so keeps the whole context.
        """
        partitioned = initializers.partitioned
        matched = self.matched.num_heads
        rate_init = query_key.first_heads(initializers.log_of_uniform_rate, matched, _SLOWEST_LOG_RATE)
        bias_init = query_key.first_heads(initializers.bias_of_log_uniform_step, matched, _SLOWEST_BIAS)
        log_rate = self.param("log_decay_rate", partitioned(rate_init, ("heads",)), (self.num_heads,))
        bias = self.param("decay_bias", partitioned(bias_init, ("heads",)), (self.num_heads,))
        step = layers.linear(self.num_heads, ("embed", "heads"), "decay", dtype="float32", use_bias=False)(x)
        return -jnp.exp(log_rate) * nn.softplus(step + bias)
