"""Floating point operations of matrix products: those of a function, and a product that shows what a machine can do."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def matmul_flops(function: Callable, *arguments) -> int:
    """Two for each multiply-add of each matrix product in `function`, those inside a scan as often as it turns."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":  # of a platform's own version, say: one branch is taken
            total += max(_count(branch.jaxpr) for branch in equation.params["branches"])
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                total += times * _count(getattr(inner, "jaxpr", inner))
    return total


def square_product(size: int, dtype: str = "float32") -> tuple[Callable[[], jax.Array], int]:
    """A product of two square matrices, to be timed as the best that a machine can do, and its flops."""
    a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=(size, size)), dtype) for seed in (0, 1))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b), 2 * size**3
