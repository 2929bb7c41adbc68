"""Floating point operations of matrix products: of a function, and what this machine makes of them at its best."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from setups import seconds


def matmul_flops(function: Callable, *arguments) -> int:
    """Two for each multiply-add of each matrix product in `function`, those inside a scan as often as it turns."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                total += times * _count(getattr(inner, "jaxpr", inner))
    return total


def peak(dtype: str, sizes: tuple[int, ...], rounds: int = 15) -> tuple[float, int]:
    """Flops a second of the fastest of some square matrix products, and its size."""

    def product(size: int) -> Callable[[], jax.Array]:
        a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=(size, size)), dtype) for seed in (0, 1))
        multiply = jax.jit(jnp.matmul)
        return lambda: multiply(a, b)

    times = seconds([product(size) for size in sizes], rounds)
    return max((2 * size**3 / took, size) for size, took in zip(sizes, times, strict=True))
