"""Sums over all tasks of a large pool, a block of tasks at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Task ids [n] -> log weights [..., n] and a pytree of values [..., n], empty if only the weights are summed.
Terms = Callable[[jax.Array], tuple[jax.Array, Any]]


def sum_over_tasks(terms: Terms, num_tasks: int, block_size: int) -> tuple[jax.Array, Any]:
    """Returns the logarithm of the sum of weights, and the weighted means of values, over tasks 0..num_tasks-1.

    Blocks follow each other in a scan that keeps only sums, relative to the largest weight so far. So memory is
    determined by the block size alone, and no weight overflows.

    Args:
      terms: the log weights and values of a block of tasks. Ids are uint32.
      num_tasks: K.
      block_size: the number of tasks in a block; it need not divide K.

    Returns:
      log sum_k exp(log weight_k) [...], and a pytree of means [...].
    """
    block_size = min(block_size, num_tasks)

    def block(first):
        ids = first + jnp.arange(block_size, dtype=jnp.uint32)
        log_weights, values = terms(jnp.minimum(ids, num_tasks - 1))
        return jnp.where(ids < num_tasks, log_weights, -jnp.inf), values

    def add(sums, first):
        log_weights, values = block(first)
        largest, total, weighted = sums
        new_largest = jnp.maximum(largest, log_weights.max(axis=-1))
        scale, weights = jnp.exp(largest - new_largest), jnp.exp(log_weights - new_largest[..., None])
        total = scale * total + weights.sum(axis=-1)
        weighted = jax.tree.map(lambda w, v: scale * w + (weights * v).sum(axis=-1), weighted, values)
        return (new_largest, total, weighted), None

    log_weights, values = jax.eval_shape(block, jax.ShapeDtypeStruct((), jnp.uint32))
    shape, dtype = log_weights.shape[:-1], log_weights.dtype
    empty = (
        jnp.full(shape, -jnp.inf, dtype),
        jnp.zeros(shape, dtype),
        jax.tree.map(lambda v: jnp.zeros(v.shape[:-1], v.dtype), values),
    )
    firsts = jnp.arange(0, num_tasks, block_size, dtype=jnp.uint32)
    (largest, total, weighted), _ = jax.lax.scan(add, empty, firsts)
    return largest + jnp.log(total), jax.tree.map(lambda w: w / total, weighted)
