"""The mixers of gpicl_flax.models, written plainly as cells that nn.RNN applies to one position after another.

Equations are those of the classes of the same name in the package. As in `flax_references`, each model takes the
settings of the one that it stands for, and initial values, which cost nothing, are flax's own.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax_references import DeltaCell, mlp_block

from gpicl_flax.models.rotary import rotate
from gpicl_flax.models.sequence_model import InContextModel


class Cell(nn.RNNCellBase):
    """Heads with a matrix, and perhaps more, as carry."""

    num_heads: int
    key_size: int
    value_size: int

    @property
    def num_feature_axes(self):
        return 1

    def keys(self, x, bias=True):
        return nn.DenseGeneral((self.num_heads, self.key_size), use_bias=bias)(x)

    def values(self, x, bias=True):
        return nn.DenseGeneral((self.num_heads, self.value_size), use_bias=bias)(x)

    def of_heads(self, name, init=nn.initializers.zeros):
        return self.param(name, init, (self.num_heads,))

    def initialize_carry(self, rng, input_shape) -> Any:
        return jnp.zeros((*input_shape[:-1], self.num_heads, self.key_size, self.value_size))


def _outer(key, value):
    return key[..., None] * value[..., None, :]


def _read(state, query):
    return jnp.einsum("bhkv,bhk->bhv", state, query)


def _merged(x, size):
    return nn.DenseGeneral(size, axis=(-2, -1))(x)


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class Convolution(nn.Module):
    """A causal convolution over four positions: (the last three inputs, x [B, ...]) -> (the last three, outputs)."""

    @nn.compact
    def __call__(self, past, x):
        kernel = self.param("kernel", nn.initializers.uniform(0.5), (4, *x.shape[1:]))
        window = jnp.concatenate([past, x[:, None]], axis=1)
        return window[:, 1:], (window * kernel).sum(1)


class LinearAttentionCell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        state, total = carry
        query, key, value = nn.elu(self.keys(x)) + 1, nn.elu(self.keys(x)) + 1, self.values(x)
        state, total = state + _outer(key, value), total + key
        read = _read(state, query) / ((query * total).sum(-1, keepdims=True) + 1e-6)
        return (state, total), _merged(read, x.shape[-1])

    def initialize_carry(self, rng, input_shape):
        state = super().initialize_carry(rng, input_shape)
        return state, state[..., 0]


class RetNetCell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        state, position = carry
        turned = [rotate(self.keys(x)[:, None], position[:1])[:, 0] for _ in range(2)]
        query, key, value = turned[0], turned[1] * self.key_size**-0.5, self.values(x)
        decay = 1 - 2.0 ** (-5 - jnp.arange(self.num_heads))
        state = decay[:, None, None] * state + _outer(key, value)
        read = nn.RMSNorm(epsilon=1e-5)(_read(state, query)) * nn.silu(self.values(x))
        return (state, position + 1), _merged(read, x.shape[-1])

    def initialize_carry(self, rng, input_shape):
        return super().initialize_carry(rng, input_shape), jnp.zeros(input_shape[:-1], jnp.int32)


class Mamba2Cell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        state, *past = carry
        linear = nn.Dense(self.key_size)(x), nn.Dense(self.key_size)(x), self.values(x)
        pairs = [Convolution()(*pair) for pair in zip(past, linear, strict=True)]
        past, (query, key, value) = [pair[0] for pair in pairs], [nn.silu(pair[1]) for pair in pairs]
        step = nn.softplus(nn.Dense(self.num_heads)(x))
        decay = jnp.exp(-jnp.exp(self.of_heads("rate")) * step)
        state = decay[..., None, None] * state + _outer(key[:, None], step[..., None] * value)
        read = _read(state, jnp.broadcast_to(query[:, None], state.shape[:-1]))
        read += self.of_heads("skip", nn.initializers.ones)[:, None] * value
        norm = nn.RMSNorm(epsilon=1e-5, reduction_axes=(-2, -1), feature_axes=(-2, -1))
        return (state, *past), _merged(norm(read * nn.silu(self.values(x))), x.shape[-1])

    def initialize_carry(self, rng, input_shape):
        batch = input_shape[:-1]
        past = jnp.zeros((*batch, 3, self.key_size))
        values = jnp.zeros((*batch, 3, self.num_heads, self.value_size))
        return super().initialize_carry(rng, input_shape), past, past, values


class GLACell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        query, key, value = self.keys(x) * self.key_size**-0.5, self.keys(x), self.values(x)
        decay = nn.sigmoid(self.keys(nn.Dense(16, use_bias=False)(x))) ** (1 / 16)
        state = decay[..., None] * carry + _outer(key, value)
        return state, _merged(nn.RMSNorm(epsilon=1e-5)(_read(state, query)) * nn.silu(self.values(x)), x.shape[-1])


class MLSTMCell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        state, total, largest = carry
        query, key, value = self.keys(x), self.keys(x) * self.key_size**-0.5, self.values(x)
        log_input = nn.Dense(self.num_heads)(x)
        log_forget = nn.log_sigmoid(nn.Dense(self.num_heads)(x)) + largest
        largest = jnp.maximum(log_forget, log_input)
        forget, write = (jnp.exp(log - largest)[..., None] for log in (log_forget, log_input))
        state = forget[..., None] * state + _outer(write * key, value)
        total = forget * total + write * key
        size = jnp.maximum(jnp.abs((query * total).sum(-1)), jnp.exp(-largest))
        read = nn.RMSNorm(epsilon=1e-5)(_read(state, query) / size[..., None]) * nn.sigmoid(self.values(x))
        return (state, total, largest), _merged(read, x.shape[-1])

    def initialize_carry(self, rng, input_shape):
        state = super().initialize_carry(rng, input_shape)
        return state, state[..., 0], state[..., 0, 0]


class KDACell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        query, key, value = _unit(nn.silu(self.keys(x))), _unit(nn.silu(self.keys(x))), nn.silu(self.values(x))
        strength = nn.sigmoid(nn.Dense(self.num_heads)(x))[..., None]
        step = nn.softplus(self.keys(nn.Dense(self.value_size, use_bias=False)(x)))
        state = jnp.exp(-jnp.exp(self.of_heads("rate"))[:, None] * step)[..., None] * carry
        state += _outer(key, strength * (value - _read(state, key)))
        gate = nn.sigmoid(self.values(nn.Dense(self.value_size, use_bias=False)(x)))
        read = nn.RMSNorm(epsilon=1e-5)(_read(state, query * self.key_size**-0.5))
        return state, _merged(read * gate, x.shape[-1])


class RWKV7Cell(Cell):
    """Its inputs are x and, in later blocks, the values of the first, side by side; so are its outputs."""

    model_size: int

    @nn.compact
    def __call__(self, carry, x):
        state, before = carry
        x, first = x[:, : self.model_size], x[:, self.model_size :]
        mix = self.param("mix", nn.initializers.uniform(1.0), (6, self.model_size))
        query_x, decay_x, key_x, value_x, rate_x, gate_x = (x + mu * (before - x) for mu in mix)
        query, key, value = self.keys(query_x), self.keys(key_x), self.values(value_x)

        def low(x, factor, up, bias=True, activation=lambda y: y):
            rank = 8 * max(1, round(factor * self.model_size**0.5 / 8))
            return up(activation(nn.Dense(rank, use_bias=False)(x)), bias)

        def of_keys(name):
            return self.param(name, nn.initializers.ones, key.shape[1:])

        decay = jnp.exp(-math.exp(-0.5) * nn.sigmoid(low(decay_x, 2.5, self.keys, activation=nn.tanh)))
        rate = nn.sigmoid(low(rate_x, 2.5, self.keys))
        gate = low(gate_x, 5.0, self.values, bias=False, activation=nn.sigmoid)
        if first.shape[-1]:
            share = nn.sigmoid(low(value_x, 1.7, self.values))
            value += (first.reshape(value.shape) - value) * share
        removed = _unit(key * of_keys("removed"))
        key *= 1 + (rate - 1) * of_keys("added")
        state = decay[..., None] * state - _outer(rate * removed, _read(state, removed)) + _outer(key, value)
        norm = nn.LayerNorm(epsilon=self.key_size * 1e-5, reduction_axes=-1, feature_axes=(-2, -1))
        bonus = (query * key * of_keys("bonus")).sum(-1, keepdims=True) * value
        y = _merged((norm(_read(state, query)) + bonus) * gate, self.model_size)
        return (state, x), jnp.concatenate([y, value.reshape(len(x), -1)], axis=-1)

    def initialize_carry(self, rng, input_shape):
        return super().initialize_carry(rng, input_shape), jnp.zeros((*input_shape[:-1], self.model_size))


class RGLRUCell(Cell):
    @nn.compact
    def __call__(self, carry, x):
        state, past = carry
        past, u = Convolution()(past, self.keys(x))

        def within_heads(name):
            kernel = self.param(
                name, nn.initializers.lecun_normal(batch_axis=0), (self.num_heads, *[self.key_size] * 2)
            )
            bias = self.param(f"{name}_bias", nn.initializers.zeros, u.shape[1:])
            return nn.sigmoid(jnp.einsum("bhi,hij->bhj", u, kernel) + bias)

        rate = nn.softplus(self.param("decay", nn.initializers.constant(-4.0), u.shape[1:]))
        decay = jnp.exp(-8 * rate * within_heads("decay_gate"))
        state = decay * state + jnp.sqrt(1 - decay**2) * within_heads("input_gate") * u
        return (state, past), _merged(nn.gelu(self.keys(x)) * state, x.shape[-1])

    def initialize_carry(self, rng, input_shape):
        shape = self.num_heads, self.key_size
        return jnp.zeros((*input_shape[:-1], *shape)), jnp.zeros((*input_shape[:-1], 3, *shape))


def _recur(cell, x):
    layer: Any = nn.RNN(cell)  # gives no carry
    return layer(x)


def _window_attention(x, num_heads, key_size, window):
    """Attends to the token itself and the `window` before it, as one masked product over all pairs."""
    positions = jnp.arange(x.shape[1])
    query, key, value = (nn.DenseGeneral((num_heads, key_size))(x) for _ in range(3))
    distance = positions[:, None] - positions
    mask = (distance >= 0) & (distance <= window)
    read = nn.dot_product_attention(rotate(query, positions), rotate(key, positions), value, mask=mask)
    return _merged(read, x.shape[-1])


class Backbone(InContextModel):
    num_layers: int = 4
    num_heads: int = 8
    key_size: int = 32
    value_size: int = 32
    model_size: int = 256
    mlp_ratio: int = 4

    cell: ClassVar[type[Cell]]

    def mixed(self, x: jax.Array, layer: int) -> jax.Array:
        return _recur(self.cell(self.num_heads, self.key_size, self.value_size), x)

    @nn.compact
    def __call__(self, inputs, labels):
        x = nn.Dense(self.model_size)(self.tokens(inputs, labels))
        for layer in range(self.num_layers):
            x += self.mixed(nn.LayerNorm()(x), layer)
            x = mlp_block(x, self.mlp_ratio)
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x))


class LinearAttention(Backbone):
    cell = LinearAttentionCell


class RetNet(Backbone):
    cell = RetNetCell


class Mamba2(Backbone):
    cell = Mamba2Cell


class GLA(Backbone):
    cell = GLACell


class MLSTM(Backbone):
    cell = MLSTMCell


class KDA(Backbone):
    cell = KDACell


class RGLRU(Backbone):
    cell = RGLRUCell


class RWKV7(Backbone):
    @nn.compact
    def __call__(self, inputs, labels):
        x = nn.Dense(self.model_size)(self.tokens(inputs, labels))
        first = x[..., :0]
        for layer in range(self.num_layers):
            cell = RWKV7Cell(self.num_heads, self.key_size, self.value_size, self.model_size)
            y = _recur(cell, jnp.concatenate([nn.LayerNorm()(x), first], axis=-1))
            x = mlp_block(x + y[..., : self.model_size], self.mlp_ratio)
            first = first if layer else y[..., self.model_size :]
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x))


class SlidingWindowTransformer(Backbone):
    window: int = 32

    def mixed(self, x, layer):
        return _window_attention(x, self.num_heads, self.key_size, self.window)


class Hybrid(Backbone):
    """Blocks of DeltaNet and of attention to a window, as `pattern` has them."""

    pattern: tuple[Any, ...] = ()

    def mixed(self, x, layer):
        part = self.pattern[layer % len(self.pattern)]
        if hasattr(part, "window"):
            return _window_attention(x, part.num_heads, part.key_size, part.window)
        return _recur(DeltaCell(part.num_heads, part.key_size), x)
