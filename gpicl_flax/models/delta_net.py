"""Gated DeltaNet: linear attention whose state is a matrix that a delta rule updates. It is not in the paper."""

import math
from typing import Any, ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import delta_rule, initializers, layers
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step
from gpicl_flax.models.sequence_model import StateSize, sow_query_key

FORMS = ("chunked", "recurrent")
_SLOWEST_LOG_RATE, _SLOWEST_BIAS = 0.0, math.log(math.expm1(1e-3))  # the ends of the distributions below


@gin.configurable
class DeltaNet(MatchableBackbone):
    """Pre-layer-norm blocks of a (gated) delta rule and an MLP, on the paper's tokens; no positions.

    The architecture is that of Yang, Kautz, Hatamizadeh (2025), without the SiLU that follows the short convolutions,
    which are a switch. Otherwise it is shaped like the paper's Transformer: the same initialisers, MLP and read-out.
    Each head of a block has a state of key_size x key_size numbers, for any length of the sequence.

    Attributes:
      gated: whether heads forget, at a rate that depends on the token; if not, it is DeltaNet (Yang et al., 2024).
      form: 'chunked': parallel within chunks; 'recurrent': step by step. Both compute the same function.
      chunk_size: positions of a chunk.
      matching_heads: heads of a matched block that start from the matching initialisation (see `matching.query_key`),
        with little forgetting; needs the 'aligned' token layout. 0 turns it off.
    """

    gated: bool = True
    form: str = "chunked"
    chunk_size: Width = 16

    def __post_init__(self):
        super().__post_init__()
        if self.form not in FORMS:
            raise UsageError(f"DeltaNet.form must be one of {', '.join(FORMS)}, not {self.form!r}")

    def mixer(self, layer: int) -> Mixer:
        chunk_size = self.chunk_size if self.form == "chunked" else None
        return DeltaRule(**self.mixer_settings(layer), gated=self.gated, chunk_size=chunk_size)


class DeltaRule(Mixer):
    """Heads whose memory a (gated) delta rule writes, [B, H, K, V]; chunk_size None: step by step.

    Each of several independent queries reads and writes its own copy of the memory. The first `matched.num_heads` heads
    start matched.
    """

    gated: bool
    chunk_size: int | None

    norm_name: ClassVar[str] = "delta_norm"
    output_name: ClassVar[str] = "delta_output"

    def state_size(self, sequence_length: int) -> StateSize:
        size = self.num_heads * self.key_size * self.value_size
        return StateSize(paper=size, exact=size + self.convolution_size)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        strength = nn.sigmoid(layers.linear(self.num_heads, ("embed", "heads"), "strength", dtype="float32")(x))
        log_decay = self._log_decay(x) if self.gated else jnp.zeros_like(strength)
        query, key = _normalized(query), _normalized(key)
        sow_query_key(self, "memory", query, key)
        if isinstance(over, Prefill):
            counts = (jnp.arange(x.shape[1]) < over.length)[:, None]
            strength, log_decay = strength * counts, log_decay * counts  # other positions write and forget nothing
        arguments = query, key, value, log_decay, strength
        if isinstance(over, Queries):
            memory = over.state["matrix"]
            read = delta_rule.each(*arguments, memory)
        elif isinstance(over, Step):
            read, memory = delta_rule.recurrent(*arguments, over.state["matrix"])
        elif self.chunk_size is None:
            read, memory = delta_rule.recurrent(*arguments)
        else:
            read, memory = delta_rule.chunked(*arguments, chunk_size=min(self.chunk_size, x.shape[1]))
        scale_init = nn.with_logical_partitioning(nn.initializers.ones, ("kv",))
        read = nn.RMSNorm(scale_init=scale_init, name="read_norm")(read)
        gate = self.linear((self.num_heads, self.value_size), ("embed", "heads", "kv"), "gate")(x)
        return self.output(read * nn.silu(gate), x.shape[-1]), kept | {"matrix": memory}

    def _log_decay(self, x: jax.Array) -> jax.Array:
        """Returns ln of the decay, [B, T, heads]: -rate * softplus(linear(x) + bias).

        Rate and bias are initially distributed as in Mamba-2. A matched head starts with the slowest decay, about 0.15%
        at each position, and so keeps the whole context.
        """
        partitioned = initializers.partitioned
        matched = self.matched.num_heads
        rate_init = query_key.first_heads(_log_uniform_rate, matched, _SLOWEST_LOG_RATE)
        bias_init = query_key.first_heads(_softplus_inverse_of_log_uniform, matched, _SLOWEST_BIAS)
        log_rate = self.param("log_decay_rate", partitioned(rate_init, ("heads",)), (self.num_heads,))
        bias = self.param("decay_bias", partitioned(bias_init, ("heads",)), (self.num_heads,))
        step = layers.linear(self.num_heads, ("embed", "heads"), "decay", dtype="float32", use_bias=False)(x)
        return -jnp.exp(log_rate) * nn.softplus(step + bias)


def _normalized(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-6)


def _log_uniform_rate(key, shape, dtype=jnp.float32):
    """Draws ln of a rate that is uniform in [1, 16]."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1, 16))


def _softplus_inverse_of_log_uniform(key, shape, dtype=jnp.float32):
    """Draws b with softplus(b) log-uniform in [0.001, 0.1]."""
    step = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return jnp.log(jnp.expm1(step))
