"""Layers that several models share. Called inside a compact method, they belong to the calling module."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.models import initializers
from gpicl_flax.models.products import product

_LAYER_NORM_EPSILON = 1e-5


def linear(
    features: int | tuple[int, ...],
    names: tuple[str | None, ...],
    name: str,
    *,
    dtype: str,
    init: Initializer | None = None,
    bias_init: Initializer = nn.initializers.zeros,
    num_input_axes: int = 1,
    use_bias: bool = True,
    backward_dtype: str | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """Returns a linear layer over the last axes with a bias, which starts at zero unless `bias_init` is given.

    Args:
      features: output dimensions.
      names: the logical axes of the kernel, inputs then outputs.
      init: the initialiser of the kernel as a matrix; by default a truncated normal with the fan-in's scale, as in
        Haiku.
      dtype: the type that is computed in.
      backward_dtype: the type that only the gradient of the kernel rounds to (see `models.products`); None: `dtype`.
    """
    return Linear(
        features=features if isinstance(features, tuple) else (features,),
        num_input_axes=num_input_axes,
        names=names,
        kernel_init=init or initializers.fan_in_truncated_normal(),
        bias_init=bias_init,
        dtype=dtype,
        backward_dtype=backward_dtype or dtype,
        use_bias=use_bias,
        name=name,
    )


class Linear(nn.Module):
    """nn.DenseGeneral over the last axes, with the same parameters, but as one product of two matrices.

    So the gradient of the kernel contracts a single axis. If it contracts both B and T, XLA on CPU first copies the
    outputs' gradient transposed, in one thread, which takes 5% of a step of the Transformer. On a mesh, the first axis
    must be the one that is divided.
    """

    features: tuple[int, ...]
    num_input_axes: int
    names: tuple[str | None, ...]
    kernel_init: Initializer
    bias_init: Initializer
    dtype: str
    backward_dtype: str
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, inputs = x.shape[: x.ndim - self.num_input_axes], x.shape[x.ndim - self.num_input_axes :]
        matrix = math.prod(inputs), math.prod(self.features)

        def init(key, shape):
            return self.kernel_init(key, matrix, jnp.float32).reshape(shape)

        kernel = self.param("kernel", initializers.partitioned(init, self.names), (*inputs, *self.features))
        x, kernel = x.reshape(-1, matrix[0]).astype(self.dtype), kernel.reshape(matrix).astype(self.dtype)
        y = product(x, kernel, self.backward_dtype)
        if self.use_bias:
            names = self.names[self.num_input_axes :]
            bias = self.param("bias", initializers.partitioned(self.bias_init, names), self.features)
            y = y + bias.reshape(-1).astype(self.dtype)
        return y.reshape(*batch, *self.features)


def logits(x: jax.Array, num_outputs: int, *, name: str = "logits", init: Initializer | None = None) -> jax.Array:
    """Returns the read-out: maps x [..., d] to logits [..., C], or other outputs, in float32 for any input type."""
    return linear(num_outputs, ("embed", "classes"), name, dtype="float32", init=init)(x.astype(jnp.float32))


def layer_norm(name: str, *, dtype: str) -> nn.LayerNorm:
    """Returns layer norm over the residual stream, with scale and bias."""
    return nn.LayerNorm(
        epsilon=_LAYER_NORM_EPSILON,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


def input_mlp(
    x: jax.Array,
    hidden_size: int,
    *,
    dtype: str,
    inits: tuple[Initializer | None, Initializer | None] = (None, None),
    bias_init: Initializer = nn.initializers.zeros,
) -> jax.Array:
    """Applies linear-relu-linear-relu, h wide: maps x [..., d] to [..., h]. The authors put it before recurrent cells.

    It computes in float32, and only gradients of kernels round to `dtype` (see `models.products`). `inits` are those of
    the two kernels, `bias_init` is the first layer's.
    """
    first, second = inits
    layer = functools.partial(linear, dtype="float32", backward_dtype=dtype)
    x = nn.relu(layer(hidden_size, ("token", "mlp"), "mlp_0", init=first, bias_init=bias_init)(x))
    return nn.relu(layer(hidden_size, ("mlp", "hidden"), "mlp_1", init=second)(x))


def unit_length(x: jax.Array) -> jax.Array:
    """Returns x [..., K] divided by its length."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-6)
