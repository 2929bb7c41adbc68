"""The matching initialisation of models of blocks with heads, such as Transformer and DeltaNet.

Its first block compares x_t with every past input from step 0.

It is not in the paper. With aligned tokens, token i holds x_{i-1} and its label. The input layer writes E x_t into the
first half of the model dimensions and E x_{t-1}, with the same random E, into the second half. A matched head of the
first block takes its queries from the first half and its keys from the second. So in a Transformer its attention logits
are, after the layer norm, gain^2 (E x_t) . (E x_{i-1}) / sqrt(key size): it attends to the labels of examples that are
similar to the present one. In a model whose state is a matrix, such as DeltaNet, it writes the label under the key of
its own example, and reads with the present one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax.typing import Initializer

from gpicl_flax.bindings.kinds import Width, check
from gpicl_flax.errors import UsageError
from gpicl_flax.models.sequence_model import InContextModel


def check_model(model: InContextModel, switch: str) -> None:
    """Raises UsageError unless a model of blocks with heads can start matched.

    The attribute `switch` of the model requests it.
    """
    name = type(model).__name__
    for setting in ("matching_heads", "matching_layers"):
        check(f"{name}.{setting}", getattr(model, setting), Width)
    if model.token_layout != "aligned":
        raise UsageError(f"{name}.{switch} needs {name}.token_layout = 'aligned'")
    if model.matching_heads > min(model.num_heads, model.model_size // 2):
        raise UsageError(
            f"{name}.matching_heads must be at most min(num_heads, model_size // 2), not {model.matching_heads}"
        )
    if model.matching_layers > model.num_layers:
        raise UsageError(f"{name}.matching_layers must be at most num_layers, not {model.matching_layers}")


def embedding(base: Initializer, num_features: int) -> Initializer:
    """Returns the init of the input layer [2 X + C, model size]: E x_t | E x_{t-1} with E ~ N(0, 1/X).

    The rows of labels are as in `base`.
    """

    def init(key, shape, dtype=jnp.float32):
        base_key, projection_key = jax.random.split(key)
        half = shape[1] // 2
        projection = jax.random.normal(projection_key, (num_features, half), dtype) / num_features**0.5
        kernel = base(base_key, shape, dtype).at[: 2 * num_features].set(0)
        kernel = kernel.at[:num_features, :half].set(projection)
        return kernel.at[num_features : 2 * num_features, half : 2 * half].set(projection)

    return init


@dataclasses.dataclass(frozen=True)
class MatchedHeads:
    """The initialisers of heads of which the first `num_heads` are matched.

    Each matches other dimensions of E x, as many as fit into its keys and into the half.

    Attributes:
      gain: the factor on queries and on keys.
      num_heads: the number of matched heads.
      key_size: the key size of every head.
      other_scale: the scale of the weights that do not match, relative to those of `base`.
    """

    gain: float
    num_heads: int
    key_size: int
    other_scale: float

    def query(self, base: Initializer) -> Initializer:
        """Returns the init of the query weights [model size, heads * key size]: gain x identity from the first half."""
        return self._init(base, second_half=False, spare_scale=1.0)

    def key(self, base: Initializer) -> Initializer:
        """Returns the init of the key weights [model size, heads * key size]: gain x identity from the second half."""
        # Dimensions of a matched head that match nothing do not contribute to its logits at step 0. They can still
        # learn, because their queries are not zero.
        return self._init(base, second_half=True, spare_scale=0.0)

    def _init(self, base: Initializer, *, second_half: bool, spare_scale: float) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            half = shape[0] // 2
            kernel = self.other_scale * base(key, shape, dtype)
            for head in range(self.num_heads):
                size = min(self.key_size, half // self.num_heads)
                column = head * self.key_size
                row = half * second_half + head * size
                spare = kernel[:, column + size : column + self.key_size] * spare_scale
                matched = jnp.zeros((shape[0], size), dtype).at[row : row + size].set(self.gain * jnp.eye(size))
                kernel = kernel.at[:, column : column + self.key_size].set(jnp.concatenate([matched, spare], axis=1))
            return kernel

        return init


def first_heads(base: Initializer, num_heads: int, value: float) -> Initializer:
    """Returns the init of one number for each head: `value` for the first `num_heads`, the others as in `base`."""

    def init(key, shape, dtype=jnp.float32):
        return base(key, shape, dtype).at[:num_heads].set(value)

    return init
