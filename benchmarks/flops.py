"""Floating point operations of matrix products: those of a function, and a product that shows what a machine can do."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.training.cost import estimate


def matmul_flops(function: Callable, *arguments) -> int:
    """Those of the matrix products in `function` (see `estimate.matmul_flops`)."""
    return estimate.matmul_flops(jax.make_jaxpr(function)(*arguments))


def square_product(size: int, dtype: str = "float32") -> tuple[Callable[[], jax.Array], int]:
    """A product of two square matrices, to be timed as the best that a machine can do, and its flops."""
    a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=(size, size)), dtype) for seed in (0, 1))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b), 2 * size**3
