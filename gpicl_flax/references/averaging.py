"""The average of inputs times targets as the weights of a linear prediction."""

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import einsum, weigh_earlier


def averaging(inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Predicts w.x_t with w the mean of y_s x_s over s < t.

    It is a consistent estimate of a linear function if x ~ N(0, I) (Garg et al. 2022, arXiv 2208.01066, Section 3).

    Args:
      inputs: [B, T, X] float32 or float64.
      targets: [B, T], or [B, T, C] for C linear functions of the same inputs.

    Returns:
      Predictions in the shape of the targets; 0 at the first position.
    """
    count = jnp.maximum(jnp.arange(inputs.shape[1], dtype=inputs.dtype), 1)
    return weigh_earlier(einsum("btx,bsx->bts", inputs, inputs) / count[:, None], targets)
