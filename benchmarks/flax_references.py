"""The same mathematics as gpicl_flax.models, written plainly with flax's own layers, cells and nn.RNN.

What `benchmarks/models.py` and `benchmarks/plain_loop.py` compare with. Each class takes the settings of the model that
it stands for.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models.sequence_model import InContextModel, SequenceModel


def _input_mlp(x, hidden_size):
    for _ in range(2):
        x = nn.relu(nn.Dense(hidden_size)(x))
    return x


def mlp_block(x, ratio):
    y = nn.gelu(nn.Dense(ratio * x.shape[-1])(nn.LayerNorm()(x)))
    return x + nn.Dense(x.shape[-1])(y)


class MLP(SequenceModel):
    hidden_size: int = 1024

    @nn.compact
    def __call__(self, inputs, labels):
        return nn.Dense(self.num_classes)(_input_mlp(inputs, self.hidden_size))


class LSTM(InContextModel):
    hidden_size: int = 256

    @nn.compact
    def __call__(self, inputs, labels):
        x = _input_mlp(self.tokens(inputs, labels), self.hidden_size)
        return nn.Dense(self.num_classes)(nn.RNN(nn.OptimizedLSTMCell(self.hidden_size))(x))


class OuterProductCell(nn.RNNCellBase):
    size: int
    num_heads: int

    @nn.compact
    def __call__(self, carry, x):
        hidden, cell = carry
        gates = nn.Dense(8 * self.size * self.num_heads)(jnp.concatenate([x, hidden], axis=-1))
        gates = gates.reshape(-1, self.num_heads, 8, self.size)
        scale = nn.softplus(self.param("key_scale", nn.initializers.zeros, ()))
        rows, columns = jnp.tanh(gates[:, :, :3]) * scale, jnp.tanh(gates[:, :, 3:6])
        i, g, f = jnp.einsum("bmki,bmkj->kbmij", rows, columns)
        cell = nn.sigmoid(f + 1) * cell + nn.sigmoid(i) * g
        read = jnp.einsum("bmij,bmi->bmj", cell, gates[:, :, 6])
        hidden = (nn.sigmoid(gates[:, :, 7]) * jnp.tanh(read)).reshape(hidden.shape)
        return (hidden, cell), hidden

    def initialize_carry(self, rng, input_shape):
        batch = input_shape[:-1]
        return jnp.zeros((*batch, self.num_heads * self.size)), jnp.zeros(
            (*batch, self.num_heads, self.size, self.size)
        )

    @property
    def num_feature_axes(self):
        return 1


class OuterProductLSTM(InContextModel):
    size: int = 32
    num_heads: int = 1

    @nn.compact
    def __call__(self, inputs, labels):
        x = _input_mlp(self.tokens(inputs, labels), self.size)
        return nn.Dense(self.num_classes)(nn.RNN(OuterProductCell(self.size, self.num_heads))(x))


class VSMLCell(nn.RNNCellBase):
    """inputs: rows [B, N, P] and columns [B, C, Q], in one pytree that nn.RNN cannot take, so scanned by nn.scan."""

    hidden_size: int
    message_size: int
    micro_ticks: int

    @nn.compact
    def __call__(self, carry, example):
        lstm, forward, backward = carry
        rows, columns = example
        u = jnp.concatenate([backward, rows], axis=-1)
        v = jnp.concatenate([forward, columns], axis=-1)
        n, c = u.shape[1], v.shape[1]
        x = jnp.concatenate(
            [jnp.repeat(u[:, :, None], c, axis=2), jnp.repeat(v[:, None], n, axis=1)],
            axis=-1,
        )
        cell = nn.OptimizedLSTMCell(self.hidden_size)
        lstm, out = cell(lstm, x)
        for _ in range(self.micro_ticks - 1):
            lstm, out = cell(lstm, x)
        forward = nn.Dense(self.message_size)(out).mean(axis=1)
        backward = nn.Dense(self.message_size)(out).mean(axis=2)
        return (lstm, forward, backward), forward


def _scan_vsml(model, rows, columns):
    """rows [B, T, N, P] and columns [B, T, C, Q] -> forward messages [B, T, C, M]."""
    batch, n, c = rows.shape[0], rows.shape[2], columns.shape[2]
    lstm = (jnp.zeros((batch, n, c, model.hidden_size)),) * 2
    carry = lstm, jnp.zeros((batch, c, model.message_size)), jnp.zeros((batch, n, model.message_size))
    cell = nn.scan(
        nn.remat(VSMLCell),
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
    )(model.hidden_size, model.message_size, model.micro_ticks)
    return cell(carry, (rows, columns))[1]


class VSML(InContextModel):
    hidden_size: int = 16
    message_size: int = 8
    micro_ticks: int = 2

    @nn.compact
    def __call__(self, inputs, labels):
        examples, previous_labels = self.token_parts(inputs, labels)
        return _scan_vsml(self, examples[..., None], previous_labels[..., None])[..., 0]


class VSMLWithoutSymmetries(InContextModel):
    grid_size: int = 8
    hidden_size: int = 64
    message_size: int = 8
    micro_ticks: int = 2

    @nn.compact
    def __call__(self, inputs, labels):
        examples, previous_labels = self.token_parts(inputs, labels)
        rows = nn.DenseGeneral((self.grid_size, 16))(examples)
        columns = nn.DenseGeneral((self.grid_size, 4))(previous_labels)
        messages = _scan_vsml(self, rows, columns)
        return nn.Dense(self.num_classes)(messages.reshape(*messages.shape[:2], -1))


class Transformer(InContextModel):
    num_layers: int = 4
    num_heads: int = 8
    key_size: int = 32
    model_size: int = 256
    mlp_ratio: int = 4

    @nn.compact
    def __call__(self, inputs, labels):
        x = nn.Dense(self.model_size)(self.tokens(inputs, labels))
        x += self.param("positions", nn.initializers.truncated_normal(0.1), x.shape[1:])
        mask = nn.make_causal_mask(labels)
        for _ in range(self.num_layers):
            attention = nn.MultiHeadDotProductAttention(self.num_heads, qkv_features=self.num_heads * self.key_size)
            x += attention(nn.LayerNorm()(x), mask=mask)
            x = mlp_block(x, self.mlp_ratio)
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x))


class DeltaCell(nn.RNNCellBase):
    num_heads: int
    key_size: int

    @nn.compact
    def __call__(self, state, x):
        def heads():
            return nn.DenseGeneral((self.num_heads, self.key_size))(x)

        query, key = (y / jnp.linalg.norm(y, axis=-1, keepdims=True) for y in (heads(), heads()))
        value, strength = heads(), nn.sigmoid(nn.Dense(self.num_heads)(x))
        rate = jnp.exp(self.param("rate", nn.initializers.zeros, (self.num_heads,)))
        bias = self.param("bias", nn.initializers.constant(-4.0), (self.num_heads,))
        decay = jnp.exp(-rate * nn.softplus(nn.Dense(self.num_heads, use_bias=False)(x) + bias))
        state = state * decay[..., None, None]
        error = value - jnp.einsum("bhkv,bhk->bhv", state, key)
        state += jnp.einsum("bhk,bhv->bhkv", key, strength[..., None] * error)
        read = nn.RMSNorm()(jnp.einsum("bhkv,bhk->bhv", state, query))
        return state, nn.DenseGeneral(x.shape[-1], axis=(-2, -1))(read * nn.silu(heads()))

    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.num_heads, self.key_size, self.key_size))

    @property
    def num_feature_axes(self):
        return 1


class DeltaNet(InContextModel):
    num_layers: int = 4
    num_heads: int = 8
    key_size: int = 32
    model_size: int = 256
    mlp_ratio: int = 4

    @nn.compact
    def __call__(self, inputs, labels):
        x = nn.Dense(self.model_size)(self.tokens(inputs, labels))
        for _ in range(self.num_layers):
            layer: Any = nn.RNN(DeltaCell(self.num_heads, self.key_size))  # gives no carry
            x += layer(nn.LayerNorm()(x))
            x = mlp_block(x, self.mlp_ratio)
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x))
