"""The parts of a block. Its mixer lets a position see earlier ones: in it alone, models of one backbone differ."""

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

Shared = dict[str, jax.Array]  # what blocks share with later ones, arrays [B, T, ...] by name


class BlockPart(nn.Module):
    """Maps x [B, T, d], the normalised residual stream, to what the block adds to it, and may keep a state.

    A new part implements `state_size` and `__call__`, which is compact. Its parameters belong to its block.

    Attributes:
      kernel_init: the initialiser of kernels.
      dtype: the type that is computed in.
      backward_dtype: the type that only the gradients of kernels round to (see `models.products`).
    """

    kernel_init: Initializer
    dtype: str
    backward_dtype: str

    # The name of the norm before the part, in the tree of parameters.
    norm_name: ClassVar[str]

    def state_size(self, sequence_length: int) -> StateSize:
        """Returns the size of the state after `sequence_length` tokens. Its `exact` counts what a call returns."""
        raise NotImplementedError

    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        """Goes over tokens in one of the ways of `models.passes`.

        Args:
          x: [B, T, d].
          over: the pass; its state is the one of the block.

        Returns:
          The outputs [B, T, d], and the state after the tokens that count: a pytree of arrays [B, ...] under names of
          what they are, which no other part of the block has. It is used only after `Prefill` and `Step`.
        """
        raise NotImplementedError

    def with_shared(self, x: jax.Array, over: Pass, shared: Shared) -> tuple[jax.Array, dict[str, Any], Shared]:
        """Does the same, for a part that also reads what earlier blocks computed at the same positions.

        Such a part implements this in the place of `__call__`.

        Args:
          x, over: those of `__call__`.
          shared: what earlier blocks share.

        Returns:
          The outputs, the state, and what later blocks receive.
        """
        return *self(x, over), shared

    def linear(
        self, features: int | tuple[int, ...], names: tuple[str | None, ...], name: str, **settings: Any
    ) -> Callable[[jax.Array], jax.Array]:
        """Returns a layer as `layers.linear` does, with this part's types and, by default, its initialiser."""
        own = {"dtype": self.dtype, "backward_dtype": self.backward_dtype, "init": self.kernel_init}
        return layers.linear(features, names, name, **own | settings)


class FeedForward(BlockPart):
    """An MLP with one hidden layer and GELU (its tanh approximation).

    Attributes:
      hidden_size: width of the hidden layer.
    """

    hidden_size: int

    norm_name: ClassVar[str] = "mlp_norm"

    def state_size(self, sequence_length: int) -> StateSize:
        return StateSize(paper=0, exact=0)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        model_size = x.shape[-1]
        y = nn.gelu(self.linear(self.hidden_size, ("embed", "mlp"), "mlp_hidden")(x))
        return self.linear(model_size, ("mlp", "embed"), "mlp_output")(y), {}


class Mixer(BlockPart):
    """The part of a block that lets a position see earlier ones.

    Attributes:
      num_heads: H.
      key_size: K, the size of each head's queries and keys.
      value_size: V, the size of each head's values.
      base_key_size: the key size at the base width, see `models.scaling`.
      matched: the initialisers of queries and keys of a block that may start matched.
      short_convolution: whether queries, keys and values pass through `ShortConvolution`, whose state is
        `convolution_size` numbers.
    """

    num_heads: int
    key_size: int
    value_size: int
    base_key_size: float
    matched: MatchedHeads
    short_convolution: bool

    norm_name: ClassVar[str] = "mixer_norm"
    # The name of the output layer.
    output_name: ClassVar[str] = "mixer_output"
    # Whether all heads share one query and one key.
    shares_keys: ClassVar[bool] = False

    def queries_keys_values(
        self, x: jax.Array | tuple[jax.Array, jax.Array, jax.Array], over: Pass
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], dict[str, Any]]:
        """Returns query, key [B, T, H, K] and value [B, T, H, V], and the part of the state that they need.

        They are linear in x [B, T, d], or each in one of three such. If heads share queries and keys, these are
        [B, T, 1, K].
        """
        kept = {}

        def projected(x, name, size, init, shared=False):
            heads, axis = (1, None) if shared else (self.num_heads, "heads")
            y = self.linear((heads, size), ("embed", axis, "kv"), name, init=init)(x)
            if self.short_convolution:
                convolution = ShortConvolution(
                    identity_heads=self.matched.num_heads, heads_axis=axis, name=f"{name}_convolution"
                )
                y, kept[name] = convolution(y, over.part("convolution").part(name))
            return y

        of_query, of_key, of_value = x if isinstance(x, tuple) else (x, x, x)
        query = projected(of_query, "query", self.key_size, self.matched.query(self.kernel_init), self.shares_keys)
        key = projected(of_key, "key", self.key_size, self.matched.key(self.kernel_init), self.shares_keys)
        value = projected(of_value, "value", self.value_size, self.kernel_init)
        return (query, key, value), {"convolution": kept} if kept else {}

    @property
    def logit_scale(self) -> float:
        """The factor on products of queries and keys: 1 / sqrt(K), or sqrt(base K) / K if keys grow with the width."""
        return self.key_size**-0.5 * self.query_scale

    @property
    def query_scale(self) -> float:
        """The factor on queries whose products with keys are divided by sqrt(K) elsewhere."""
        return (self.base_key_size / self.key_size) ** 0.5

    @property
    def convolution_size(self) -> int:
        """The numbers of the state that `queries_keys_values` keeps."""
        key_heads = 1 if self.shares_keys else self.num_heads
        channels = 2 * key_heads * self.key_size + self.num_heads * self.value_size
        return self.short_convolution * NUM_KEPT * channels

    def output(self, y: jax.Array, model_size: int) -> jax.Array:
        """Returns the output layer's map of y [B, T, H, V] to [B, T, d]."""
        return self.linear(model_size, ("heads", "kv", "embed"), self.output_name, num_input_axes=2)(y)
