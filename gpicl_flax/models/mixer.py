"""The part of a block that lets a position see earlier ones. In it alone, models of one backbone differ."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.models import layers
from gpicl_flax.models.matching.query_key import MatchedHeads
from gpicl_flax.models.passes import Pass
from gpicl_flax.models.sequence_model import StateSize
from gpicl_flax.models.short_convolution import NUM_KEPT, ShortConvolution


class Mixer(nn.Module):
    """Maps x [B, T, d], the normalised residual stream, to what the block adds to it, and keeps a state.

    A new mixer implements `state_size` and `__call__`, which is compact. Its parameters belong to its block.

    Attributes:
      num_heads: H.
      key_size: K, the size of each head's queries and keys.
      value_size: V, the size of each head's values.
      kernel_init: the initialiser of kernels.
      matched: the initialisers of queries and keys of a block that may start matched.
      short_convolution: whether queries, keys and values pass through `ShortConvolution`.
      dtype: the type that is computed in.
      backward_dtype: the type that only the gradients of kernels round to (see `models.products`).
    """

    num_heads: int
    key_size: int
    value_size: int
    kernel_init: Initializer
    matched: MatchedHeads
    short_convolution: bool
    dtype: str
    backward_dtype: str

    # The names of the norm before the mixer and of its output layer, in the tree of parameters.
    norm_name: ClassVar[str] = "mixer_norm"
    output_name: ClassVar[str] = "mixer_output"
    # Whether all heads share one query and one key.
    shares_keys: ClassVar[bool] = False

    def state_size(self, sequence_length: int) -> StateSize:
        """Returns the size of the state after `sequence_length` tokens; its `exact` is the size of what a call returns.

        The numbers that `queries_keys_values` keeps are `convolution_size`.
        """
        raise NotImplementedError

    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        """Goes over tokens in one of the ways of `models.passes`.

        Args:
          x: [B, T, d].
          over: the pass; its state is the one of this mixer.

        Returns:
          The outputs [B, T, d], and the state after the tokens that count: a pytree of arrays [B, ...] under names of
          what they are. It is used only after `Prefill` and `Step`.
        """
        raise NotImplementedError

    def linear(
        self, features: int | tuple[int, ...], names: tuple[str | None, ...], name: str, **settings: Any
    ) -> Callable[[jax.Array], jax.Array]:
        """Returns a layer as `layers.linear` does, with this mixer's types and, by default, its initialiser."""
        own = {"dtype": self.dtype, "backward_dtype": self.backward_dtype, "init": self.kernel_init}
        return layers.linear(features, names, name, **own | settings)

    def queries_keys_values(
        self, x: jax.Array, over: Pass
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], dict[str, Any]]:
        """Returns query, key [B, T, H, K] and value [B, T, H, V], and the part of the state that they need.

        If heads share their queries and keys, these are [B, T, 1, K].
        """
        kept = {}

        def projected(name, size, init, shared=False):
            heads, axis = (1, None) if shared else (self.num_heads, "heads")
            y = self.linear((heads, size), ("embed", axis, "kv"), name, init=init)(x)
            if self.short_convolution:
                convolution = ShortConvolution(
                    identity_heads=self.matched.num_heads, heads_axis=axis, name=f"{name}_convolution"
                )
                y, kept[name] = convolution(y, over.part("convolution").part(name))
            return y

        query = projected("query", self.key_size, self.matched.query(self.kernel_init), self.shares_keys)
        key = projected("key", self.key_size, self.matched.key(self.kernel_init), self.shares_keys)
        value = projected("value", self.value_size, self.kernel_init)
        return (query, key, value), {"convolution": kept} if kept else {}

    @property
    def convolution_size(self) -> int:
        """The numbers of the state that `queries_keys_values` keeps."""
        key_heads = 1 if self.shares_keys else self.num_heads
        channels = 2 * key_heads * self.key_size + self.num_heads * self.value_size
        return self.short_convolution * NUM_KEPT * channels

    def output(self, y: jax.Array, model_size: int) -> jax.Array:
        """Returns the output layer's map of y [B, T, H, V] to [B, T, d]."""
        return self.linear(model_size, ("heads", "kv", "embed"), self.output_name, num_input_axes=2)(y)
