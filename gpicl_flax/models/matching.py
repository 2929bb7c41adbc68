"""The matching initialisation: a Transformer whose first attention compares x_t with every past input from step 0.

Not in the paper. With aligned tokens, token i holds x_{i-1} and its label. The input layer writes E x_t into the first
half of the model dimensions and E x_{t-1}, with the same random E, into the second half. A matched head of the first
block queries with the first half and has its keys in the second, so its attention logits are, after the layer norm,
gain^2 (E x_t) . (E x_{i-1}) / sqrt(key size): it attends to the labels of examples that look like the present one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax.typing import Initializer

_OTHER_SCALE = 0.1  # of the query and key weights that do not match


def embedding(base: Initializer, num_features: int) -> Initializer:
    """Of the input layer [2 X + C, model size]: E x_t | E x_{t-1}, E ~ N(0, 1/X); the labels' rows as in `base`."""

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
    """The first `num_heads` heads matched, each on other dimensions of E x, as many as fit its keys and the half.

    Attributes:
      gain: the factor on queries and on keys.
      num_heads: matched heads.
      key_size: of every head.
    """

    gain: float
    num_heads: int
    key_size: int

    def query(self, base: Initializer) -> Initializer:
        """Of the query weights [model size, heads * key size]: gain x identity from the first half."""
        return self._init(base, second_half=False, spare_scale=_OTHER_SCALE)

    def key(self, base: Initializer) -> Initializer:
        """Of the key weights [model size, heads * key size]: gain x identity from the second half."""
        # The dimensions of a matched head that match nothing stay out of its logits at step 0, and yet can learn:
        # their queries are not zero.
        return self._init(base, second_half=True, spare_scale=0.0)

    def _init(self, base: Initializer, *, second_half: bool, spare_scale: float) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            half = shape[0] // 2
            size = min(self.key_size, half // self.num_heads)
            kernel = _OTHER_SCALE * base(key, shape, dtype)
            for head in range(self.num_heads):
                column = head * self.key_size
                row = half * second_half + head * size
                spare = kernel[:, column + size : column + self.key_size] * (spare_scale / _OTHER_SCALE)
                matched = jnp.zeros((shape[0], size), dtype).at[row : row + size].set(self.gain * jnp.eye(size))
                kernel = kernel.at[:, column : column + self.key_size].set(jnp.concatenate([matched, spare], axis=1))
            return kernel

        return init
