"""Gaussian classes: every task has its own class means, and an example is its class mean plus noise.

Reddy 2024 (arXiv 2312.03002) has a relative of it, with K given classes and labels that several of them share.
"""

import jax
import jax.numpy as jnp


def draw_task(key: jax.Array, *, num_classes: int, num_features: int) -> jax.Array:
    """Returns class means [C, X] float32 ~ N(0, I/X). They are exchangeable, so labels need no permutation."""
    return jax.random.normal(key, (num_classes, num_features)) / jnp.sqrt(num_features)


def draw_sequence(
    key: jax.Array, class_means: jax.Array, *, length: int, noise: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws examples of a task: uniform independent labels y_t, and x_t = mean of y_t + noise N(0, I/X).

    Args:
      key: the key of the sequence.
      class_means: the task, [C, X].
      length: T.
      noise: the within-class standard deviation, in units of that of the class means.

    Returns:
      Inputs [T, X] float32 and labels [T] int32.
    """
    num_classes, num_features = class_means.shape
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.randint(label_key, (length,), 0, num_classes)
    deviations = jax.random.normal(noise_key, (length, num_features)) / jnp.sqrt(num_features)
    return class_means[labels] + noise * deviations, labels
