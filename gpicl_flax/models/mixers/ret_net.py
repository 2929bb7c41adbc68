"""RetNet (Sun et al., 2023): linear attention with rotary positions, where each head forgets at a rate of its own."""

from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.passes import Pass, positions
from gpicl_flax.models.rotary import rotate
from gpicl_flax.models.sequence_model import sow_query_key


@gin.configurable
class RetNet(MatrixBackbone):
    """The backbone with multi-scale retention. Values have twice the size of keys by default, as in the paper."""

    @property
    def default_value_size(self) -> int:
        return 2 * self.key_size

    def mixer(self, layer: int) -> MatrixMemory:
        return Retention(**self.mixer_settings(layer))


class Retention(MatrixMemory):
    """S_t = gamma_h S_{t-1} + k_t v_t^T, read as o_t = S_t^T q_t, with gamma_h = 1 - 2^(-5 - h) for head h = 0, 1, ...

    Queries and keys have rotary positions. A norm of each head and a SiLU gate follow.
    """

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        own = positions(over, x.shape[1])
        query, key = rotate(query, own), rotate(key, own) * self.logit_scale
        sow_query_key(self, "memory", query, key)
        log_decay = jnp.log1p(-(2.0 ** (-5.0 - jnp.arange(self.num_heads))))
        log_decay = jnp.broadcast_to(log_decay.astype(x.dtype), key.shape[:-1])
        read, memory = self.remember(over, query, key, value, log_decay)
        read = self.normalized_read(read) * nn.silu(self.gate(x))
        return self.output(read, x.shape[-1]), kept | memory
