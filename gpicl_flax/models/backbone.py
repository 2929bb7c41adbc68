"""The backbone that all mixers share: embedding, blocks of norm, mixer, norm and MLP, read-out.

Models of one backbone have the same width, MLP, norms, token layout and initial scale, so that a comparison of them is
one of their mixers.
"""

from fractions import Fraction
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Layers, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models import initializers, layers, scaling
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.mixer import BlockPart, FeedForward, Mixer, Shared
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import PREDICTIONS, StatefulModel, StateSize

GROWTHS = HEADS, KEYS = ("heads", "keys")
_BLOCK = "block_"


class BlockStack(StatefulModel):
    """Pre-layer-norm blocks x + mixer(norm(x)), x + MLP(norm(x)), with the paper's initialisers; no positions.

    A new model implements `mixer`.

    Attributes:
      num_layers: the number of blocks.
      model_size: width of the residual stream.
      mlp_ratio: width of the MLP's hidden layer over the model size, unless `mlp_size` is set.
      mlp_size: width of the MLP's hidden layer. It sets the number of parameters whatever the state; None: from
        `mlp_ratio`.
      base_depth: the number of blocks at which 'mup' is the standard parametrisation; None: `num_layers`. Residual
        branches are multiplied by base depth over depth.
    """

    num_layers: Layers = 4
    model_size: Width = 256
    mlp_ratio: Width = 4
    mlp_size: Width | None = None
    base_depth: Layers | None = None

    predictable: ClassVar[tuple[str, ...]] = PREDICTIONS
    growing: ClassVar[tuple[str, ...]] = ("model_size", "mlp_size")

    def mixer(self, layer: int) -> Mixer:
        """Returns the mixer of a block."""
        raise NotImplementedError

    def feed_forward(self, layer: int) -> BlockPart:
        """Returns the part of a block that follows its mixer: an MLP, unless a model has its own."""
        return FeedForward(**self.part_settings(), hidden_size=self.hidden_size)

    @property
    def hidden_size(self) -> int:
        """The width of the MLP's hidden layer."""
        return self.mlp_size or self.mlp_ratio * self.model_size

    def block_parts(self, layer: int) -> tuple[BlockPart, ...]:
        """Returns the parts of a block in their order."""
        return self.mixer(layer), self.feed_forward(layer)

    def part_settings(self) -> dict[str, Any]:
        """Returns the attributes that all parts of blocks have."""
        return {
            # Branches are multiplied by the depth ratio already, so the initial scale is that of the base.
            "kernel_init": initializers.scaled_by_depth(self.init_depth),
            "dtype": self.compute_dtype,
            "backward_dtype": self.dtype,
            "parent": None,  # the block adopts it
        }

    @property
    def init_depth(self) -> int:
        """The number of blocks that determines the initial scale."""
        base = self.base_depth if self.parametrization == scaling.MUP else None
        return base or self.num_layers

    def depth_ratio(self, path: scaling.Path) -> float:
        return self.num_layers / self.init_depth if path[0].startswith(_BLOCK) else 1.0

    @property
    def compute_dtype(self) -> str:
        """The type of activations. It is float32, whatever `dtype`, because a state is a sum over the whole sequence.

        A read that is almost zero, as at first positions, would also amplify rounding where it is normalised.
        """
        return "float32"

    def embedding_init(self, num_features: int) -> Initializer:
        """Returns the initialiser of the input layer for X = num_features."""
        return initializers.fan_in_truncated_normal()

    def embed(self, parts: list[jax.Array], over: Pass) -> jax.Array:
        """Maps the parts of tokens to the residual stream [B, T, d]."""
        return layers.linear(
            self.model_size,
            ("token", "embed"),
            "embedding",
            dtype=self.compute_dtype,
            backward_dtype=self.dtype,
            init=self.embedding_init(parts[0].shape[-1]),
        )(jnp.concatenate(parts, -1))

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        blocks = [self.block_parts(layer) for layer in range(self.num_layers)]
        sizes = [part.state_size(sequence_length) for parts in blocks for part in parts]
        return StateSize(paper=sum(size.paper for size in sizes), exact=sum(size.exact for size in sizes))

    @nn.compact
    def run(self, parts: list[jax.Array], over: Pass):
        x = self.embed(parts, over)
        states, shared = [], {}
        for layer in range(self.num_layers):
            block = Block(self.block_parts(layer), self.init_depth / self.num_layers, name=f"{_BLOCK}{layer}")
            x, state, shared = block(x, over.part(layer), shared)
            states.append(state)
        x = layers.layer_norm("final_norm", dtype=self.compute_dtype)(x)
        return layers.logits(x, self.num_outputs), states


class Backbone(BlockStack):
    """A stack of blocks whose mixers have heads.

    A new model implements `mixer`, and makes it of `mixer_settings`.

    Attributes:
      num_heads, key_size: the number of heads and the size of each one's keys; their product need not be the model
        size.
      short_convolution: whether queries, keys and values pass through a convolution over four positions.
      grows_by: what grows with the width: 'heads', of one size, or 'keys' and values of one number of heads. It is
        for 'mup', where larger keys have smaller attention logits: q . k sqrt(base key size) / key size.
    """

    num_heads: Width = 8
    key_size: Width = 32
    short_convolution: bool = False
    grows_by: str = HEADS

    def __post_init__(self):
        super().__post_init__()
        if self.grows_by not in GROWTHS:
            raise UsageError(
                f"{type(self).__name__}.grows_by must be one of {', '.join(GROWTHS)}, not {self.grows_by!r}"
            )

    def heads_grown(self, factor: Fraction) -> dict[str, Any]:
        """Returns the settings of heads at `factor` times the width; raises UsageError if one is no whole number."""
        names = ("num_heads",) if self.grows_by == HEADS else ("key_size", "value_size")
        return self._multiplied(factor, tuple(name for name in names if hasattr(self, name)))

    def grown(self, width: int) -> dict[str, Any]:
        return super().grown(width) | self.heads_grown(Fraction(width, self.width))

    @property
    def base_key_size(self) -> float:
        """The key size at the base width."""
        return self.key_size / self.width_ratio if self.grows_by == KEYS else self.key_size

    def mixer_settings(self, layer: int) -> dict[str, Any]:
        """Returns the attributes that all mixers have, for the mixer of block `layer`."""
        return self.part_settings() | {
            "num_heads": self.num_heads,
            "key_size": self.key_size,
            "value_size": self.key_size,
            "base_key_size": self.base_key_size,
            "matched": query_key.MatchedHeads(1.0, 0, self.key_size, other_scale=1.0),
            "short_convolution": self.short_convolution,
        }


class MatchableBackbone(Backbone):
    """A backbone whose mixers compare queries with keys, so that it can start matched (see `matching.query_key`).

    Attributes:
      matching_heads: heads of a matched block that start from the matching initialisation; needs the 'aligned' token
        layout. 0 turns it off.
      matching_layers: the number of first blocks that start matched.
    """

    matching_heads: int = 0
    matching_layers: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.matching_heads != 0:
            query_key.check_model(self, "matching_heads")

    def mixer_settings(self, layer: int) -> dict[str, Any]:
        # Queries and keys, or what is read with them, are normalised. So neither a gain nor the scale of the other
        # weights matters.
        heads = self.matching_heads if layer < self.matching_layers else 0
        return super().mixer_settings(layer) | {
            "matched": query_key.MatchedHeads(1.0, heads, self.key_size, other_scale=1.0)
        }

    def embedding_init(self, num_features: int) -> Initializer:
        if not self.matching_heads:
            return super().embedding_init(num_features)
        # Labels start as large as E x. The read of a matched head is normalised, and with the usual small rows the part
        # of it that distinguishes labels would be too small.
        return query_key.embedding(nn.initializers.normal(1.0), num_features)


class Block(nn.Module):
    """x + part(norm(x)) for each of its parts, for x [B, T, d]; also returns the state of all parts.

    The parameters of the parts are its own.

    Attributes:
      parts: the parts, in their order.
      scale: the factor on what each part adds.
    """

    parts: tuple[BlockPart, ...]
    scale: float

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass, shared: Shared) -> tuple[jax.Array, dict[str, Any], Shared]:
        state = {}
        for part in self.parts:
            nn.share_scope(self, part)
            y, kept, shared = part.with_shared(layers.layer_norm(part.norm_name, dtype=part.dtype)(x), over, shared)
            x, state = x + (y if self.scale == 1 else self.scale * y), state | kept
        return x, state, shared
