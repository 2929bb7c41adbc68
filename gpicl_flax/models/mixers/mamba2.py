"""Mamba-2 (Dao & Gu, 2024): a matrix that is written to in steps of a size that the token chooses."""

from typing import Any, ClassVar

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models import initializers, layers
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.mixer import BlockPart
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import sow_query_key


@gin.configurable
class Mamba2(MatrixBackbone):
    """The backbone with Mamba-2's mixer. Values have twice the model size over all heads by default, as in the paper.

    In the paper's words, keys are B, queries C and values x; the key size is the state size N and the value size the
    head size P, 128 and 64 in the paper's larger models.

    Attributes:
      short_convolution: whether B, C and x pass through a convolution over four positions, which is a part of the
        paper's mixer. It has no bias; the layers before it have one.
      own_block: whether blocks are the paper's, the mixer alone. Otherwise an MLP follows the mixer, as in every other
        model of the backbone. At equal parameters the paper has twice the number of blocks.
    """

    short_convolution: bool = True
    own_block: bool = False

    @property
    def default_value_size(self) -> int:
        return max(2 * self.model_size // self.num_heads, 1)

    def mixer(self, layer: int) -> MatrixMemory:
        return StateSpace(**self.mixer_settings(layer))

    def block_parts(self, layer: int) -> tuple[BlockPart, ...]:
        parts = super().block_parts(layer)
        return parts[:1] if self.own_block else parts


class StateSpace(MatrixMemory):
    """S_t = exp(-rate dt_t) S_{t-1} + dt_t k_t v_t^T, read as o_t = S_t^T q_t + skip v_t.

    Heads share q and k. Each has its rate and its skip, and dt_t = softplus(linear(x_t)) is a number for each. A SiLU
    gate and then a norm over all heads follow.
    """

    shares_keys: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        query, key, value = nn.silu(query), nn.silu(key), nn.silu(value)
        sow_query_key(self, "memory", query, key)
        step = layers.linear(
            self.num_heads,
            ("embed", "heads"),
            "step",
            dtype="float32",
            bias_init=initializers.bias_of_log_uniform_step,
        )
        step = nn.softplus(step(x))
        log_decay = -jnp.exp(self._of_heads("log_decay_rate", initializers.log_of_uniform_rate)) * step
        read, memory = self.remember(over, query, key, step[..., None] * value, log_decay)
        read = read + self._of_heads("skip", nn.initializers.ones)[:, None] * value
        read = self._norm(read * nn.silu(self.gate(x)))
        return self.output(read, x.shape[-1]), kept | memory

    def _of_heads(self, name: str, init: nn.initializers.Initializer) -> jax.Array:
        """Returns a parameter of one number for each head."""
        return self.param(name, initializers.partitioned(init, ("heads",)), (self.num_heads,))

    def _norm(self, read: jax.Array) -> jax.Array:
        """Returns the RMS norm over all heads of read [B, T, H, V]."""
        axes = (-2, -1)
        scale_init = nn.with_logical_partitioning(nn.initializers.ones, ("heads", "kv"))
        return nn.RMSNorm(
            epsilon=1e-5, scale_init=scale_init, reduction_axes=axes, feature_axes=axes, name="read_norm"
        )(read)
