"""Bayes for noisy linear regression with a known pool of tasks: the posterior mean over their weight vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import einsum, sum_earlier
from gpicl_flax.references.task_pool import sum_over_tasks


def pool_posterior(
    inputs: jax.Array,
    targets: jax.Array,
    draw_tasks: Callable[[jax.Array], jax.Array],
    *,
    num_tasks: int,
    noise: float | jax.Array,
    block_size: int = 256,
) -> jax.Array:
    """Predicts w.x_t for y = w.x + N(0, noise^2) with w uniform over K given vectors: the posterior mean.

    It is the dMMSE estimator of Raventos et al. 2023 (arXiv 2306.15063, Section 2). Tasks are drawn anew for each block
    rather than kept, and memory is a few times B x T x block_size numbers.

    Args:
      inputs: [B, T, X] float32 or float64.
      targets: [B, T].
      draw_tasks: task ids [n] uint32 in 0..K-1 -> their weight vectors [n, X]; for an array, `lambda ids: array[ids]`.
      num_tasks: K.
      noise: the standard deviation of the noise, positive.
      block_size: the number of tasks that are weighed at once. The default is quick on CPU, where blocks should fit its
        caches; accelerators are quicker with larger ones.

    Returns:
      Predictions [B, T].
    """
    variance = jnp.square(jnp.asarray(noise, inputs.dtype))

    def terms(task_ids):
        predictions = einsum("btx,kx->btk", inputs, draw_tasks(task_ids).astype(inputs.dtype))
        log_likelihoods = -jnp.square(targets[..., None] - predictions) / (2 * variance)
        return sum_earlier(log_likelihoods), predictions

    return sum_over_tasks(terms, num_tasks, block_size)[1]
