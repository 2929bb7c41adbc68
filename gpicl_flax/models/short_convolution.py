"""The short convolution in front of queries, keys and values that most recurrent models of today have."""

import functools
import operator

import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models import initializers
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step

WIDTH = 4
NUM_KEPT = WIDTH - 1  # inputs of each channel that the state holds


class ShortConvolution(nn.Module):
    """A causal depthwise convolution of x [B, T, H, K] over four positions, without a bias.

    Weights start uniform in [-1/2, 1/2], 1 / sqrt(width), as in the code of Mamba and of Gated DeltaNet.

    Attributes:
      identity_heads: the number of first heads that start as the identity. A matched head needs it: it compares x_t
        with one example, and not with four.
      heads_axis: the logical name of the axis of heads; None if all devices need all of it.
    """

    identity_heads: int = 0
    heads_axis: str | None = "heads"

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, jax.Array]:
        """Returns the outputs [B, T, H, K] and the last three inputs [B, 3, H, K], which are zeros before the first."""
        init = initializers.partitioned(self._init, (None, self.heads_axis, "kv"))
        kernel = self.param("kernel", init, (WIDTH, *x.shape[2:])).astype(x.dtype)
        if isinstance(over, Queries):
            past = jnp.einsum("bjhk,jhk->bhk", over.state, kernel[:-1])
            return past[:, None] + kernel[-1] * x, over.state
        before = over.state if isinstance(over, Step) else jnp.zeros((len(x), NUM_KEPT, *x.shape[2:]), x.dtype)
        read = jnp.concatenate([before, x], axis=1)
        length = x.shape[1]
        y = functools.reduce(operator.add, (kernel[j] * read[:, j : j + length] for j in range(WIDTH)))
        counted = over.length if isinstance(over, Prefill) else length
        return y, jax.lax.dynamic_slice_in_dim(read, counted, NUM_KEPT, axis=1)

    def _init(self, key, shape, dtype=jnp.float32):
        kernel = jax.random.uniform(key, shape, dtype, -(WIDTH**-0.5), WIDTH**-0.5)
        identity = jnp.zeros(WIDTH, dtype).at[-1].set(1)[:, None, None]
        return kernel.at[:, : self.identity_heads].set(identity)
