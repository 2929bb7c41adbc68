"""RWKV-7 (Peng et al., 2025): a matrix that a generalised delta rule writes, with a decay for each key dimension."""

import math
from typing import Any, ClassVar

import gin
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.models.initializers import partitioned
from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.mixer import BlockPart, Shared
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import StateSize, sow_query_key
from gpicl_flax.models.token_shift import previous

_STREAMS = {"query": 0.2, "decay": 0.9, "key": 0.7, "value": 0.7, "rate": 0.9, "gate": 0.2}  # see `_shift_init`


@gin.configurable
class RWKV7(MatrixBackbone):
    """The backbone with RWKV-7's time mix.

    The equations, and the starting values of all but the large kernels, are those of the paper and of its authors'
    code, BlinkDL/RWKV-LM. The rest is the backbone's: these kernels and their biases, which RWKV does not have, no norm
    after the embedding, and, unless `channel_mix`, the MLP. Keys and values may differ in size, and all heads together
    from the model. The ranks of the small layers are 1.7 to 5 times the root of the model size as in that code, but
    multiples of 8 instead of 32.

    The state of a block is a matrix (`paper`), and d numbers of the token shift; with `channel_mix`, 2 d.

    Attributes:
      channel_mix: whether RWKV's channel mix takes the place of the MLP. Its width is the MLP's.
    """

    chunk_size: Width = matrix_state.KEY_DECAY_CHUNK_SIZE
    channel_mix: bool = False

    def mixer(self, layer: int) -> "TimeMix":
        return TimeMix(
            **self.mixer_settings(layer),
            model_size=self.model_size,
            base_model_size=round(self.model_size / self.width_ratio),
            layer=layer,
            num_layers=self.num_layers,
        )

    def feed_forward(self, layer: int) -> BlockPart:
        if not self.channel_mix:
            return super().feed_forward(layer)
        return ChannelMix(
            **self.part_settings(),
            hidden_size=self.hidden_size,
            model_size=self.model_size,
            shift_power=(1 - layer / self.num_layers) ** 4,
        )


class TimeMix(MatrixMemory):
    """S_t = (diag(w_t) - (a_t kappa_t) kappa_t^T) S_{t-1} + k~_t v_t^T, read as o_t = S_t^T r_t.

    The paper writes the transpose of S, and multiplies it from the right. Everything is computed from a mixture of the
    normalised token and the one before, x_t + mu (x_{t-1} - x_t), with a mu for each use:

        w = exp(-e^(-1/2) sigmoid(w_0 + tanh(x W) W'))    the decay, at least 0.545
        a = sigmoid(a_0 + x A A')                         the rate at which a key's content is replaced
        kappa = norm(k * k_k), k~ = k (1 + (a - 1) k_a)   the keys that are removed and added
        v = v + (v_first - v) sigmoid(v_0 + x N N')       in later blocks: v_first is that of the first
        g = sigmoid(x G) G'                               the output gate

    The block adds output((norm of each head(o) + (r . r_k k~) v) g).

    Attributes:
      model_size: d.
      base_model_size: d at the base width, see `models.scaling`.
      layer, num_layers: the place of the block, by which it starts differently.
    """

    model_size: int
    base_model_size: int
    layer: int
    num_layers: int

    def state_size(self, sequence_length: int) -> StateSize:
        size = super().state_size(sequence_length)
        return size._replace(exact=size.exact + self.model_size)

    @nn.compact
    def with_shared(self, x: jax.Array, over: Pass, shared: Shared) -> tuple[jax.Array, dict[str, Any], Shared]:
        before, last = previous(x, over.part("token_shift"))
        mix = self.param("token_shift", partitioned(self._shift_init, (None, "embed")), (len(_STREAMS), x.shape[-1]))
        of = {name: x + mu * (before - x) for name, mu in zip(_STREAMS, mix, strict=True)}
        (query, key, value), kept = self.queries_keys_values((of["query"], of["key"], of["value"]), over)

        decay = self._low_rank("decay", of["decay"], 2.5, self.key_size, self._decay_bias, nn.tanh)
        log_decay = -math.exp(-0.5) * nn.sigmoid(decay)
        rate = nn.sigmoid(self._low_rank("rate", of["rate"], 2.5, self.key_size, self._rate_bias))
        gate = self._low_rank("gate", of["gate"], 5.0, self.value_size, None, nn.sigmoid)
        first = f"first_values_{self.num_heads}x{self.value_size}"
        if first in shared:
            kind = "value_residual"
            share = nn.sigmoid(self._low_rank(kind, of["value"], 1.7, self.value_size, self._residual_bias))
            value = value + (shared[first] - value) * share

        removed = key * self._of_keys("removed_key", lambda index: 0.71 - 0.1 * index)
        removed = removed * jax.lax.rsqrt(jnp.maximum(jnp.sum(removed**2, axis=-1, keepdims=True), 1e-12))
        key = key * (1 + (rate - 1) * self._of_keys("added_key", lambda index: 1.02 + 0 * index))
        sow_query_key(self, "memory", query, key)
        read, memory = self.remember(over, query, key, value, log_decay, (-rate * removed, removed))
        bonus = (query * key * self._of_keys("bonus", lambda index: -0.04 + 0 * index)).sum(-1, keepdims=True) * value
        y = self.output((self._head_norm(read) + bonus) * gate, x.shape[-1])
        return y, kept | memory | {"token_shift": last}, {first: value} | shared

    def _low_rank(self, name, x, factor, size, bias_init, activation=lambda y: y):
        """Returns activation(x W) W' (+ bias), [B, T, H, size], where W starts at zero."""
        rank, base_rank = (
            8 * max(1, round(factor * width**0.5 / 8)) for width in (self.model_size, self.base_model_size)
        )
        # Orthogonal rows, or columns, of a fixed length have entries of variance 1 / the longer side. Entries with that
        # of the base over the growth of the rank are what 'mup' asks for.
        features = self.num_heads * size
        base_features = features * self.base_model_size / self.model_size
        longer = max(rank, features) / max(base_rank, base_features)
        scale = 0.1 * (longer * base_rank / rank) ** 0.5
        y = self.linear(rank, ("embed", None), f"{name}_down", use_bias=False, init=nn.initializers.zeros)(x)
        up = self.linear(
            (self.num_heads, size),
            (None, "heads", "kv"),
            f"{name}_up",
            init=nn.initializers.orthogonal(scale),
            **{"use_bias": False} if bias_init is None else {"bias_init": bias_init},
        )
        return up(activation(y))

    def _of_keys(self, name, start):
        """Returns a parameter [H, K]; `start` maps the place of a channel, from -1/2 to 1/2, to its first value."""
        init = partitioned(lambda _, shape: jnp.asarray(start(_places(shape)), jnp.float32), ("heads", "kv"))
        return self.param(name, init, (self.num_heads, self.key_size))

    def _head_norm(self, read: jax.Array) -> jax.Array:
        """Returns the norm of each head's read [B, T, H, V] over its values, with a scale and a bias for each."""
        return nn.LayerNorm(
            epsilon=self.key_size * 1e-5,
            reduction_axes=-1,
            feature_axes=(-2, -1),
            use_fast_variance=False,
            scale_init=partitioned(nn.initializers.ones, ("heads", "kv")),
            bias_init=partitioned(nn.initializers.zeros, ("heads", "kv")),
            name="read_norm",
        )(read)

    def _shift_init(self, key, shape, dtype=jnp.float32):
        """Later channels, and all in later blocks, start by seeing less of the token before."""
        power = np.array(list(_STREAMS.values()))[:, None] * (1 - self.layer / self.num_layers)
        return _shift(power, shape, dtype)

    def _decay_bias(self, key, shape, dtype=jnp.float32):
        """Starts channels with half-lives from 1 to 3,400 tokens; later blocks have more of the long ones."""
        depth = self.layer / max(self.num_layers - 1, 1)
        rising = 6 * (_places(shape) + 0.5) ** (1 + depth**0.3) - 6
        return jnp.asarray(rising + 0.5 + 2.5 * _within_heads(shape), dtype)

    def _rate_bias(self, key, shape, dtype=jnp.float32):
        return jnp.asarray(-0.19 + 0.3 * _within_heads(shape) + 0.4 * _places(shape), dtype)

    def _residual_bias(self, key, shape, dtype=jnp.float32):
        return jnp.asarray(0.73 - 0.4 * _places(shape), dtype)


class ChannelMix(BlockPart):
    """W' relu(W x)^2 of the mixture x_t + mu (x_{t-1} - x_t) of a token and the one before.

    Attributes:
      hidden_size: width of the hidden layer.
      model_size: d.
      shift_power: by which mu starts.
    """

    hidden_size: int
    model_size: int
    shift_power: float

    norm_name: ClassVar[str] = "mlp_norm"

    def state_size(self, sequence_length: int) -> StateSize:
        return StateSize(paper=0, exact=self.model_size)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        before, last = previous(x, over.part("channel_token_shift"))
        init: Initializer = lambda _, shape: _shift(self.shift_power, shape)  # noqa: E731
        mix = self.param("channel_token_shift", partitioned(init, ("embed",)), (self.model_size,))
        hidden = self.linear(self.hidden_size, ("embed", "mlp"), "mlp_hidden")(x + mix * (before - x))
        y = self.linear(self.model_size, ("mlp", "embed"), "mlp_output")(nn.relu(hidden) ** 2)
        return y, {"channel_token_shift": last}


def _shift(power, shape, dtype=jnp.float32):
    """Returns 1 - (i / d)^power for channel i of d, the last axis."""
    return jnp.asarray(np.broadcast_to(1 - (np.arange(shape[-1]) / shape[-1]) ** power, shape), dtype)


def _places(shape):
    """Returns the places of the channels of all heads [H, K] in their order, from -1/2 to 1/2."""
    return np.arange(math.prod(shape)).reshape(shape) / max(math.prod(shape) - 1, 1) - 0.5


def _within_heads(shape):
    """Returns the places of the channels [H, K] in their heads, from -1 to 1, squared with their sign."""
    place = np.linspace(-1, 1, shape[-1]) if shape[-1] > 1 else np.zeros(1)
    return np.broadcast_to(place * abs(place), shape)
