"""Initialisers of the authors' code (google/learned_optimization, research/data_driven), and those of decays."""

import math
from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer


def partitioned(init: Initializer, names: tuple[str | None, ...]) -> Initializer:
    """Returns the initialiser of a parameter whose axes have these logical names.

    It returns a box, but `nn.Module.param` removes it again, so the type is that of a plain initialiser.
    """
    return cast(Initializer, nn.with_logical_partitioning(init, names))


def fan_in_truncated_normal(fan_in: float | None = None) -> Initializer:
    """Returns a truncated normal with standard deviation 1 / sqrt(fan_in) before truncation at two of them.

    This is the linear layer's default in Haiku, without the correction for the truncation that `variance_scaling`
    makes. `fan_in` defaults to the product of all dimensions but the last.
    """

    def init(key, shape, dtype="float32"):
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) / (fan_in or math.prod(shape[:-1])) ** 0.5

    return init


def scaled_by_depth(num_layers: int) -> Initializer:
    """Returns variance scaling 2 / num_layers over the fan-in, for attention and MLP weights of a Transformer."""
    return jax.nn.initializers.variance_scaling(2.0 / num_layers, "fan_in", "truncated_normal")


def log_of_uniform_rate(key, shape, dtype=jnp.float32):
    """Draws ln of a rate that is uniform in [1, 16], as Mamba-2 does."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1, 16))


def bias_of_log_uniform_step(key, shape, dtype=jnp.float32):
    """Draws b with softplus(b) log-uniform in [0.001, 0.1], as Mamba-2 does."""
    step = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return jnp.log(jnp.expm1(step))
