"""Linear attention (Katharopoulos et al., 2020): a matrix that sums keys times values, and never forgets."""

from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import sow_query_key

FEATURE_MAPS = ("elu", "identity")


@gin.configurable
class LinearAttention(MatchableBackbone, MatrixBackbone):
    """The backbone with linear attention.

    Attributes:
      feature_map: 'elu': queries and keys pass through elu + 1, and a sum of keys normalises what is read, as in the
        paper; 'identity': they stay as they are, and a norm follows, which matching heads need.
    """

    feature_map: str = "elu"

    def __post_init__(self):
        super().__post_init__()
        if self.feature_map not in FEATURE_MAPS:
            raise UsageError(
                f"LinearAttention.feature_map must be one of {', '.join(FEATURE_MAPS)}, not {self.feature_map!r}"
            )
        if self.matching_heads and self.feature_map != "identity":
            raise UsageError("LinearAttention.matching_heads needs LinearAttention.feature_map = 'identity'")

    def mixer(self, layer: int) -> MatrixMemory:
        return LinearMemory(**self.mixer_settings(layer), feature_map=self.feature_map)


class LinearMemory(MatrixMemory):
    """S_t = S_{t-1} + phi(k_t) v_t^T, read as o_t = S_t^T phi(q_t).

    With phi = elu + 1, the heads also keep z_t = z_{t-1} + phi(k_t), and o_t is divided by phi(q_t) . z_t.
    """

    feature_map: str

    @property
    def has_normaliser(self) -> bool:
        return self.feature_map == "elu"

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        if self.has_normaliser:
            query, key = nn.elu(query) + 1, nn.elu(key) + 1
        sow_query_key(self, "memory", query, key)
        read, memory = self.remember(over, query, key, value, jnp.zeros_like(query[..., 0]))
        if self.has_normaliser:
            read = read[..., :-1] / (read[..., -1:] + 1e-6)
        else:
            read = self.normalized_read(read)
        return self.output(read, x.shape[-1]), kept | memory
