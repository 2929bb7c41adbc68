"""Gated DeltaNet: linear attention whose state is a matrix that a delta rule updates. It is not in the paper."""

import functools
import math

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Layers, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import initializers, layers
from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step
from gpicl_flax.models.sequence_model import StatefulModel, StateSize, sow_query_key

FORMS = ("chunked", "recurrent")
_SLOWEST_LOG_RATE, _SLOWEST_BIAS = 0.0, math.log(math.expm1(1e-3))  # the ends of the distributions below


@gin.configurable
class DeltaNet(StatefulModel):
    """Pre-layer-norm blocks of a (gated) delta rule and an MLP, on the paper's tokens; no positions.

    The architecture is that of Yang, Kautz, Hatamizadeh (2025), without the short convolutions, which would have a
    state of their own, and without the SiLU that follows them. Otherwise it is shaped like the paper's Transformer: the
    same initialisers, MLP and read-out. Each head of a block has a state of key_size x key_size numbers, for any length
    of the sequence.

    Attributes:
      num_layers: the number of blocks.
      num_heads, key_size: the number of heads and the size of each one's keys, queries and values.
      model_size: width of the residual stream.
      mlp_ratio: width of the MLP's hidden layer over the model size.
      gated: whether heads forget, at a rate that depends on the token; if not, it is DeltaNet (Yang et al., 2024).
      form: 'chunked': parallel within chunks; 'recurrent': step by step. Both compute the same function.
      chunk_size: positions of a chunk, rounded up to a power of two.
      matching_heads: heads of a matched block that start from the matching initialisation (see `matching.query_key`),
        with little forgetting; needs the 'aligned' token layout. 0 turns it off.
      matching_layers: the number of first blocks that start matched.
    """

    num_layers: Layers = 4
    num_heads: Width = 8
    key_size: Width = 32
    model_size: Width = 256
    mlp_ratio: Width = 4
    gated: bool = True
    form: str = "chunked"
    chunk_size: Width = 16
    matching_heads: int = 0
    matching_layers: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.matching_heads != 0:
            query_key.check_model(self, "matching_heads")
        if self.form not in FORMS:
            raise UsageError(f"DeltaNet.form must be one of {', '.join(FORMS)}, not {self.form!r}")

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        size = self.num_layers * self.num_heads * self.key_size**2
        return StateSize(paper=size, exact=size)

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        linear = functools.partial(layers.linear, dtype="float32", backward_dtype=self.dtype)
        embedding_init = None
        if self.matching_heads:
            # Labels start as large as E x. The read of a matched head is normalised, and with the usual small rows the
            # part of it that distinguishes labels would be too small.
            embedding_init = query_key.embedding(nn.initializers.normal(1.0), parts[0].shape[-1])
        x = linear(self.model_size, ("token", "embed"), "embedding", init=embedding_init)(jnp.concatenate(parts, -1))
        memories = []
        for layer in range(self.num_layers):
            x, memory = Block(
                num_heads=self.num_heads,
                key_size=self.key_size,
                mlp_ratio=self.mlp_ratio,
                gated=self.gated,
                chunk_size=self.chunk_size if self.form == "chunked" else None,
                kernel_init=initializers.scaled_by_depth(self.num_layers),
                matched_heads=self.matching_heads if layer < self.matching_layers else 0,
                dtype=self.dtype,
                name=f"block_{layer}",
            )(x, over, layer)
            memories.append(memory)
        return layers.logits(layers.layer_norm("final_norm", dtype="float32")(x), self.num_classes), memories


class Block(nn.Module):
    """x + delta rule(norm(x)), then x + MLP(norm(x)), for x [B, T, model size]; chunk_size None: step by step.

    It also returns the memory of its heads after the positions that count, [B, heads, key size, key size]. A state has
    the memories of all layers. Each of several independent queries reads and writes its own copy of its layer's memory.

    The first `matched_heads` heads start matched.
    """

    num_heads: int
    key_size: int
    mlp_ratio: int
    gated: bool
    chunk_size: int | None
    kernel_init: Initializer
    matched_heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass, layer: int) -> tuple[jax.Array, jax.Array]:
        init = self.kernel_init
        linear = functools.partial(layers.linear, init=init, dtype="float32", backward_dtype=self.dtype)
        y = layers.layer_norm("delta_norm", dtype="float32")(x)

        def heads(name, init=init):  # [B, T, heads, key size]
            features = (self.num_heads, self.key_size)
            return linear(features, ("embed", "heads", "kv"), name, init=init)(y)

        # Everything is float32, because the state is a sum over the whole sequence, and because a read that is almost
        # zero, as at first positions, is normalised. Queries and keys are normalised as well, so neither a gain nor the
        # scale of the other weights matters.
        start = query_key.MatchedHeads(1.0, self.matched_heads, self.key_size, other_scale=1.0)
        inits = ("query", start.query(init)), ("key", start.key(init)), ("value", init)
        query, key, value = (heads(name, init) for name, init in inits)
        strength = nn.sigmoid(layers.linear(self.num_heads, ("embed", "heads"), "strength", dtype="float32")(y))
        log_decay = self._log_decay(y) if self.gated else jnp.zeros_like(strength)
        query, key = _normalized(query), _normalized(key)
        sow_query_key(self, "memory", query, key)
        if isinstance(over, Prefill):
            counts = (jnp.arange(x.shape[1]) < over.length)[:, None]
            strength, log_decay = strength * counts, log_decay * counts  # other positions write and forget nothing
        strength = strength[..., None]
        recall = strength * jnp.exp(log_decay)[..., None] * key  # what the decayed memory has for the key
        arguments = query, key, strength * value, log_decay, (None, recall)
        if isinstance(over, Queries):
            memory = over.state[layer]
            read = matrix_state.each(*arguments, memory)
        elif isinstance(over, Step):
            read, memory = matrix_state.recurrent(*arguments, over.state[layer])
        elif self.chunk_size is None:
            read, memory = matrix_state.recurrent(*arguments)
        else:
            read, memory = matrix_state.chunked(*arguments, chunk_size=self.chunk_size)
        read = nn.RMSNorm(scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("kv",)), name="read_norm")(
            read
        )
        x = x + linear(x.shape[-1], ("heads", "kv", "embed"), "delta_output", num_input_axes=2)(
            read * nn.silu(heads("gate"))
        )
        x = layers.mlp_block(x, ratio=self.mlp_ratio, init=init, dtype="float32", backward_dtype=self.dtype)
        return x, memory

    def _log_decay(self, y: jax.Array) -> jax.Array:
        """Returns ln of the decay, [B, T, heads]: -rate * softplus(linear(y) + bias).

        Rate and bias are initially distributed as in Mamba-2. A matched head starts with the slowest decay, about 0.15%
        at each position, and so keeps the whole context.
        """
        partitioned = initializers.partitioned
        rate_init = query_key.first_heads(_log_uniform_rate, self.matched_heads, _SLOWEST_LOG_RATE)
        bias_init = query_key.first_heads(_softplus_inverse_of_log_uniform, self.matched_heads, _SLOWEST_BIAS)
        log_rate = self.param("log_decay_rate", partitioned(rate_init, ("heads",)), (self.num_heads,))
        bias = self.param("decay_bias", partitioned(bias_init, ("heads",)), (self.num_heads,))
        step = layers.linear(self.num_heads, ("embed", "heads"), "decay", dtype="float32", use_bias=False)(y)
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
