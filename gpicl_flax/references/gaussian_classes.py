"""Predictors for Gaussian classes: x = mean_y + noise N(0, I/X), with class means ~ N(0, I/X) and uniform labels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import einsum, sum_earlier
from gpicl_flax.references.task_pool import sum_over_tasks


def conjugate(inputs: jax.Array, labels: jax.Array, *, num_classes: int, noise: float | jax.Array) -> jax.Array:
    """Predicts the classes by the posterior predictive density of x_t in each, given the examples before t.

    The posterior of a class mean is normal, so that x_t given n examples of its class with sum S is

        x_t ~ N(S / (n + noise^2), (noise^2 + noise^2 / (n + noise^2)) I / X)

    This is Bayes for unbounded tasks with uniform independent labels and no label noise.

    Args:
      inputs: [B, T, X] float32 or float64.
      labels: [B, T] int; examples with label -1 are not learned from.
      num_classes: C.
      noise: the within-class standard deviation, positive, in units of that of the class means.

    Returns:
      Log probabilities [B, T, C].
    """
    variance, num_features = jnp.square(jnp.asarray(noise, inputs.dtype)), inputs.shape[-1]

    def log_densities(x, counts, sums):
        spread = (variance + variance / (counts + variance)) / num_features
        distances = jnp.sum(jnp.square(x - sums / (counts + variance)[:, None]), axis=-1)
        return -0.5 * (num_features * jnp.log(spread) + distances / spread)

    return jax.nn.log_softmax(_from_class_sums(log_densities, inputs, labels, num_classes))


def nearest_class_mean(inputs: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """Predicts the class whose examples before t have the mean that is nearest to x_t.

    Args:
      inputs: [B, T, X] float32 or float64.
      labels: [B, T] int; examples with label -1 are not learned from.
      num_classes: C.

    Returns:
      Shares [B, T, C]: 1 for the nearest class, divided among classes that are equally near; 0 without any example.
    """

    def shares(x, counts, sums):
        distances = jnp.sum(jnp.square(x - sums / jnp.maximum(counts, 1)[:, None]), axis=-1)
        distances = jnp.where(counts > 0, distances, jnp.inf)
        nearest = ((distances == distances.min()) & (counts > 0)).astype(x.dtype)
        return nearest / jnp.maximum(nearest.sum(), 1)

    return _from_class_sums(shares, inputs, labels, num_classes)


def pool_posterior(
    inputs: jax.Array,
    labels: jax.Array,
    draw_tasks: Callable[[jax.Array], jax.Array],
    *,
    num_tasks: int,
    noise: float | jax.Array,
    block_size: int = 16,
) -> jax.Array:
    """Predicts the classes by the mixture over K given tasks, each weighed by the examples before t and by x_t.

    This is Bayes for K tasks with uniform independent labels and no label noise. Tasks are drawn anew for each block
    rather than kept, and memory is a few times B x T x C x block_size numbers.

    Args:
      inputs: [B, T, X] float32 or float64.
      labels: [B, T] int; of examples with label -1, neither the input nor the label is learned from.
      draw_tasks: task ids [n] uint32 in 0..K-1 -> their class means [n, C, X]; for an array, `lambda ids: array[ids]`.
      num_tasks: K.
      noise: the within-class standard deviation, positive, in units of that of the class means.
      block_size: the number of tasks that are weighed at once. The default is quick on CPU, where blocks should fit its
        caches; accelerators are quicker with larger ones.

    Returns:
      Log probabilities [B, T, C].
    """
    inverse_variance = inputs.shape[-1] / jnp.square(jnp.asarray(noise, inputs.dtype))

    def terms(task_ids):
        means = draw_tasks(task_ids).astype(inputs.dtype)
        # Log densities without the terms that all tasks and classes share.
        products = einsum("btx,kcx->btck", inputs, means) - jnp.sum(jnp.square(means), axis=-1).T / 2
        log_densities = inverse_variance * products
        chosen = jax.nn.one_hot(labels, means.shape[1], dtype=inputs.dtype)
        seen = sum_earlier(einsum("btck,btc->btk", log_densities, chosen))
        return seen[:, :, None] + log_densities, ()

    return jax.nn.log_softmax(sum_over_tasks(terms, num_tasks, block_size)[0])


def _from_class_sums(
    predict: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    inputs: jax.Array,
    labels: jax.Array,
    num_classes: int,
) -> jax.Array:
    """Applies predict: (x [X], counts [C], sums [C, X] of the examples before) -> [C] at every position."""

    def step(statistics, example):
        (counts, sums), (x, label) = statistics, example
        chosen = jax.nn.one_hot(label, num_classes, dtype=x.dtype)
        return (counts + chosen, sums + chosen[:, None] * x), predict(x, counts, sums)

    empty = (jnp.zeros(num_classes, inputs.dtype), jnp.zeros((num_classes, inputs.shape[-1]), inputs.dtype))
    return jax.vmap(lambda x, y: jax.lax.scan(step, empty, (x, y))[1])(inputs, labels)
