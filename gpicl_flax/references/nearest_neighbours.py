"""The mean of the targets of the nearest examples."""

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import weigh_earlier


def nearest_neighbours(inputs: jax.Array, targets: jax.Array, k: int) -> jax.Array:
    """Predicts the mean target of the k examples before t whose inputs are nearest to x_t.

    As long as there are fewer than k examples, all count. Examples that are exactly as far as the k-th nearest count
    too, so that the order of the examples does not matter. Garg et al. 2022 (arXiv 2208.01066) use k = 3. With one-hot
    labels as targets, predictions are the share of each class; k = 1 is exact look-up.

    Args:
      inputs: [B, T, X] float32 or float64.
      targets: [B, T], or [B, T, C].
      k: the number of neighbours, at least 1.

    Returns:
      Predictions in the shape of the targets; 0 at the first position.
    """
    length = inputs.shape[1]

    # One position after another, because all differences of inputs would take B x T x T x X numbers. They are not made
    # from products of the inputs, which would round the small distances of inputs far from 0.
    def squared_distances(queries):  # [B, X]
        return jnp.sum(jnp.square(inputs - queries[:, None]), axis=-1)

    distances = jax.lax.map(squared_distances, inputs.swapaxes(0, 1)).swapaxes(0, 1)
    distances = jnp.where(jnp.tri(length, k=-1, dtype=bool), distances, jnp.inf)
    farthest = jnp.sort(distances, axis=-1)[..., min(k, length) - 1 : min(k, length)]
    near = jnp.tril(distances <= farthest, -1).astype(inputs.dtype)
    return weigh_earlier(near / jnp.maximum(near.sum(axis=-1, keepdims=True), 1), targets)
