"""The paper's causal Transformer (Section 3.2; architecture and initialisers as in the authors' code)."""

from collections.abc import Callable
from types import NoneType

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.errors import UsageError, check_positive_integers, check_types
from gpicl_flax.models import initializers, matching
from gpicl_flax.models.sequence_model import SequenceModel, StateSize

_LAYER_NORM_EPSILON = 1e-5


@gin.configurable
class Transformer(SequenceModel):
    """A pre-layer-norm causal Transformer with learned positions; the defaults are the paper's.

    Attributes:
      num_layers: blocks of self-attention and MLP.
      num_heads, key_size: attention heads and the size of each one's keys, queries and values; their product need not
        be the model size.
      model_size: width of the residual stream.
      mlp_ratio: width of the MLP's hidden layer over the model size.
      max_length: T_max, the number of learned positions.
      matching_gain: if set, start from the matching initialisation (see `matching`) with this gain; needs the
        'aligned' token layout. None, as in the paper, leaves it off.
      matching_heads: heads of the first block that start matched.
    """

    num_layers: int = 4
    num_heads: int = 8
    key_size: int = 32
    model_size: int = 256
    mlp_ratio: int = 4
    max_length: int = 100
    matching_gain: float | None = None
    matching_heads: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_positive_integers(self, "num_layers", "num_heads", "key_size", "model_size", "mlp_ratio", "max_length")
        check_types(self, matching_gain=(float, int, NoneType))
        if self.matching_gain is not None:
            check_positive_integers(self, "matching_heads")
            if self.token_layout != "aligned":
                raise UsageError("Transformer.matching_gain needs Transformer.token_layout = 'aligned'")
            if self.matching_heads > min(self.num_heads, self.model_size // 2):
                raise UsageError(
                    f"Transformer.matching_heads must be at most min(num_heads, model_size // 2), not {self.matching_heads}"
                )

    @property
    def max_sequence_length(self) -> int:
        return self.max_length

    def state_size(self, sequence_length: int) -> StateSize:
        paper = self.key_size * self.num_layers * sequence_length
        return StateSize(paper=paper, exact=2 * self.num_heads * paper)

    @nn.compact
    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]; T at most max_length."""
        scaled = initializers.scaled_by_depth(self.num_layers)
        embedding_init = initializers.fan_in_truncated_normal()
        query_init = key_init = scaled
        if self.matching_gain is not None:
            embedding_init = matching.embedding(embedding_init, inputs.shape[-1])
            heads = matching.MatchedHeads(self.matching_gain, self.matching_heads, self.key_size)
            query_init, key_init = heads.query(scaled), heads.key(scaled)

        x = nn.Dense(
            self.model_size,
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(embedding_init, ("token", "embed")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
            name="embedding",
        )(self.tokens(inputs, labels))
        positions = self.param(
            "positions",
            nn.with_logical_partitioning(nn.initializers.truncated_normal(0.1), ("position", "embed")),
            (self.max_length, self.model_size),
        )
        x = x + positions[: x.shape[1]].astype(x.dtype)
        for layer in range(self.num_layers):
            x = Block(
                num_heads=self.num_heads,
                key_size=self.key_size,
                mlp_ratio=self.mlp_ratio,
                kernel_init=scaled,
                query_init=query_init if layer == 0 else scaled,
                key_init=key_init if layer == 0 else scaled,
                dtype=self.dtype,
                name=f"block_{layer}",
            )(x)
        x = _layer_norm(self.dtype, "final_norm")(x)
        return nn.Dense(
            self.num_classes,
            kernel_init=nn.with_logical_partitioning(initializers.fan_in_truncated_normal(), ("embed", "classes")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("classes",)),
            name="logits",
        )(x.astype(jnp.float32))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), for x [B, T, model size]."""

    num_heads: int
    key_size: int
    mlp_ratio: int
    kernel_init: Initializer
    query_init: Initializer
    key_init: Initializer
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        model_size = x.shape[-1]
        y = _layer_norm(self.dtype, "attention_norm")(x)
        query, key, value = (
            self._linear((self.num_heads, self.key_size), ("embed", "heads", "kv"), name, init)(y)
            for name, init in (("query", self.query_init), ("key", self.key_init), ("value", self.kernel_init))
        )
        y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self._linear(model_size, ("heads", "kv", "embed"), "attention_output", self.kernel_init, axis=(-2, -1))(
            y
        )
        y = _layer_norm(self.dtype, "mlp_norm")(x)
        y = nn.gelu(self._linear(self.mlp_ratio * model_size, ("embed", "mlp"), "mlp_hidden", self.kernel_init)(y))
        return x + self._linear(model_size, ("mlp", "embed"), "mlp_output", self.kernel_init)(y)

    def _linear(
        self, features, names: tuple[str, ...], name: str, init: Initializer, axis: int | tuple[int, ...] = -1
    ) -> Callable[[jax.Array], jax.Array]:
        num_outputs = len(features) if isinstance(features, tuple) else 1
        return nn.DenseGeneral(
            features,
            axis=axis,
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(init, names),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, names[-num_outputs:]),
            name=name,
        )


def _layer_norm(dtype: str, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=_LAYER_NORM_EPSILON,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )
