"""Layers that several models are made of. Called inside a compact method, they belong to the calling module."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from gpicl_flax.models import initializers

_LAYER_NORM_EPSILON = 1e-5


def linear(
    features: int | tuple[int, ...],
    names: tuple[str | None, ...],
    name: str,
    *,
    dtype: str,
    init: Initializer | None = None,
    num_input_axes: int = 1,
    use_bias: bool = True,
) -> Callable[[jax.Array], jax.Array]:
    """A linear layer over the last axes with a bias that starts at zero.

    Args:
      features: output dimensions.
      names: the logical axes of the kernel, inputs then outputs.
      init: of the kernel as a matrix; by default a truncated normal with the fan-in's scale, as in Haiku.
    """

    def apply(x: jax.Array) -> jax.Array:
        inputs = x.shape[x.ndim - num_input_axes :]
        outputs = features if isinstance(features, tuple) else (features,)
        weights = Weights(inputs, outputs, names, init, use_bias, name=name)()
        return _product(x, *weights, num_input_axes, dtype)

    return apply


def joint_linear(
    features: tuple[int, int], names: tuple[str | None, ...], inits: dict[str, Initializer], *, dtype: str
) -> Callable[[jax.Array], list[jax.Array]]:
    """Linear layers with the same inputs and features, by name, as one product, which is faster than one after another."""

    def apply(x: jax.Array) -> list[jax.Array]:
        weights = [Weights(x.shape[-1:], features, names, init, name=name)() for name, init in inits.items()]
        # Side by side along the last axis, which no rule divides over a mesh.
        kernel, bias = (jnp.concatenate(each, axis=-1) for each in zip(*weights, strict=True))
        return jnp.split(_product(x, kernel, bias, 1, dtype), len(inits), axis=-1)

    return apply


class Weights(nn.Module):
    """Kernel [*inputs, *features] and bias [*features], with the names and shapes of nn.DenseGeneral's."""

    inputs: tuple[int, ...]
    features: tuple[int, ...]
    names: tuple[str | None, ...]
    kernel_init: Initializer | None
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        def init(key, shape):
            matrix = math.prod(self.inputs), math.prod(self.features)
            return (self.kernel_init or initializers.fan_in_truncated_normal())(key, matrix, jnp.float32).reshape(shape)

        kernel = self.param("kernel", nn.with_logical_partitioning(init, self.names), (*self.inputs, *self.features))
        if not self.use_bias:
            return kernel, None
        names = self.names[len(self.inputs) :]
        return kernel, self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, names), self.features)


def _product(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, num_input_axes: int, dtype: str) -> jax.Array:
    """A product of two matrices, so that the kernel's gradient contracts one axis: where it contracts both B and T, XLA on
    CPU first copies the outputs' gradient transposed, by one thread."""
    num_inputs, features = math.prod(kernel.shape[:num_input_axes]), kernel.shape[num_input_axes:]
    y = x.reshape(-1, num_inputs).astype(dtype) @ kernel.reshape(num_inputs, -1).astype(dtype)
    if bias is not None:
        y = y + bias.reshape(-1).astype(dtype)
    return y.reshape(*x.shape[: x.ndim - num_input_axes], *features)


def logits(x: jax.Array, num_classes: int, *, name: str = "logits") -> jax.Array:
    """The read-out x [..., d] -> logits [..., C], in float32 whatever comes in."""
    return linear(num_classes, ("embed", "classes"), name, dtype="float32")(x.astype(jnp.float32))


def layer_norm(name: str, *, dtype: str) -> nn.LayerNorm:
    """Layer norm over the residual stream, with scale and bias."""
    return nn.LayerNorm(
        epsilon=_LAYER_NORM_EPSILON,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


def mlp_block(x: jax.Array, *, ratio: int, init: Initializer, dtype: str) -> jax.Array:
    """x + MLP(norm(x)) for x [B, T, d], with a hidden layer of `ratio` d and GELU (its tanh approximation)."""
    model_size = x.shape[-1]
    y = layer_norm("mlp_norm", dtype=dtype)(x)
    y = nn.gelu(linear(ratio * model_size, ("embed", "mlp"), "mlp_hidden", dtype=dtype, init=init)(y))
    return x + linear(model_size, ("mlp", "embed"), "mlp_output", dtype=dtype, init=init)(y)


def input_mlp(x: jax.Array, hidden_size: int, *, dtype: str) -> jax.Array:
    """linear-relu-linear-relu, h wide, which the authors put before their recurrent cells: x [..., d] -> [..., h]."""
    x = nn.relu(linear(hidden_size, ("token", "mlp"), "mlp_0", dtype=dtype)(x))
    return nn.relu(linear(hidden_size, ("mlp", "hidden"), "mlp_1", dtype=dtype)(x))
