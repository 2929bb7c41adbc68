"""Hybrids: blocks of several models, one after another, such as three that are recurrent and one of attention."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import gin
from flax.typing import Initializer

from gpicl_flax.errors import UsageError
from gpicl_flax.models.backbone import Backbone, BlockStack
from gpicl_flax.models.delta_net import DeltaNet
from gpicl_flax.models.mixer import BlockPart
from gpicl_flax.models.mixers.sliding_window import SlidingWindowTransformer

# What a hybrid determines for all blocks. Only its own values count.
_OWN = ("num_classes", "dtype", "predicts", "token_layout", "num_layers", "model_size", "mlp_ratio", "mlp_size")
_OWN += ("parametrization", "base_width", "base_depth")
# What a part has outside its blocks.
_OUTSIDE = ("max_length",)


@gin.configurable
class Hybrid(BlockStack):
    """The backbone with a pattern of blocks. The state is all of theirs.

    The default is three blocks of gated DeltaNet and one of attention to a window. In gin, each part has the settings
    of its model:

        Hybrid.pattern = [@RGLRU(), @RGLRU(), @SlidingWindowTransformer()]
        SlidingWindowTransformer.window = 64

    Parts of one model with different settings have scopes: @short/SlidingWindowTransformer(). What is outside mixers,
    such as the width, the hybrid determines for all. A Transformer among the parts has no positions.

    Attributes:
      pattern: models of the backbone, whose blocks follow one another, again and again up to `num_layers`.
    """

    pattern: Sequence[Backbone] = (DeltaNet(), DeltaNet(), DeltaNet(), SlidingWindowTransformer())

    def __post_init__(self):
        object.__setattr__(self, "pattern", tuple(self.pattern) if isinstance(self.pattern, list) else self.pattern)
        super().__post_init__()
        if not self.pattern:
            raise UsageError("Hybrid.pattern must name a model")
        for part in self.pattern:
            self._check(part)

    def _check(self, part: Backbone) -> None:
        """Raises UsageError if a part is none, or has a setting of its own that would be ignored."""
        name = type(part).__name__
        if not isinstance(part, Backbone):
            raise UsageError(f"Hybrid.pattern must be models of the backbone, not {name}")
        for setting in (*_OWN, *_OUTSIDE):
            value = getattr(part, setting, None)
            default = getattr(type(part), setting, None)
            if value not in (default, getattr(self, setting, default)):
                remedy = f"set Hybrid.{setting}" if setting in _OWN else "leave it out"
                raise UsageError(f"{name}.{setting} = {value!r} has no effect in a hybrid: {remedy}")

    def grown(self, width: int) -> dict[str, Any]:
        factor = Fraction(width, self.width)
        parts = tuple(part.clone(parent=None, name=None, **part.heads_grown(factor)) for part in self.pattern)
        return super().grown(width) | {"pattern": parts}

    def part(self, layer: int) -> Backbone:
        """Returns the model that a block is of, with what the hybrid determines."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in _OWN}
        return self.pattern[layer % len(self.pattern)].clone(parent=None, name=None, **settings)

    def block_parts(self, layer: int) -> tuple[BlockPart, ...]:
        parts = self.part(layer).block_parts(layer)
        return tuple(part.clone(parent=None, dtype=self.compute_dtype) for part in parts)

    def embedding_init(self, num_features: int) -> Initializer:
        return self.part(0).embedding_init(num_features)  # the first block may start matched
