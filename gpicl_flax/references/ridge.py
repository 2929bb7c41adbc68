"""Ridge regression on the examples before each position."""

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import weigh_earlier


def ridge(inputs: jax.Array, targets: jax.Array, penalty: float | jax.Array) -> jax.Array:
    """Predicts w.x_t with the w that minimises sum_{s < t} (y_s - w.x_s)^2 + penalty |w|^2.

    If w ~ N(0, I) and y = w.x + N(0, s^2), the prediction with penalty = s^2 is the posterior mean, which is Bayes for
    unbounded tasks (Raventos et al. 2023, arXiv 2306.15063). One-hot labels as targets give scores of the classes.
    There is no intercept.

    Args:
      inputs: [B, T, X] float32 or float64.
      targets: [B, T], or [B, T, C] for C regressions on the same inputs.
      penalty: lambda > 0.

    Returns:
      Predictions in the shape of the targets; 0 at the first position.
    """
    # With G the Gram matrix of the inputs and G + penalty I = L L^T, the leading block of L belongs to the first t
    # examples alone, and row t of L below the diagonal is what it makes of the products of x_t with them. So one L
    # serves all positions, whatever X is. It comes from a QR decomposition of [X^T; sqrt(penalty) I] rather than from
    # G, because that has the square root of the condition number.
    batch, length, _ = inputs.shape
    scaled_eye = jnp.sqrt(jnp.asarray(penalty, inputs.dtype)) * jnp.eye(length, dtype=inputs.dtype)
    stacked = jnp.concatenate(
        [inputs.swapaxes(1, 2), jnp.broadcast_to(scaled_eye, (batch, length, length))],
        axis=1,
    )
    lower = jnp.linalg.qr(stacked, mode="r").swapaxes(1, 2)
    columns = targets.reshape(batch, length, -1).astype(inputs.dtype)
    solved = jax.lax.linalg.triangular_solve(lower, columns, left_side=True, lower=True)
    return weigh_earlier(lower, solved).reshape(targets.shape)
