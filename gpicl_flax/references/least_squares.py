"""Least squares on the examples before each position, with the smallest norm where they do not determine it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.references.earlier import einsum

_ROUNDING = 10  # times X eps |x| is the least part outside the span of earlier inputs that counts as a new direction


class _System(NamedTuple):
    """The least-squares problem of the examples so far, in coordinates along an orthonormal basis of their inputs.

    Attributes:
      rank: the number of directions in the basis.
      basis: [X, X], one direction a row; the rows from `rank` on are zero.
      rows: [X, X + C], an upper triangular factor of the coordinates of the examples, and the targets, rotated alike.
    """

    rank: jax.Array
    basis: jax.Array
    rows: jax.Array


def least_squares(inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Predicts w.x_t with the w of smallest norm among those that minimise sum_{s < t} (y_s - w.x_s)^2.

    It is the limit of `ridge` for a penalty of 0, and optimal for linear functions without noise (Garg et al. 2022,
    arXiv 2208.01066, Section 3). There is no intercept.

    Args:
      inputs: [B, T, X] float32 or float64.
      targets: [B, T], or [B, T, C] for C regressions on the same inputs.

    Returns:
      Predictions in the shape of the targets; 0 at the first position.
    """
    # Each example is one more row of a triangular system, which a QR decomposition makes triangular again. This squares
    # no condition number, as products of the inputs would: after X examples, they are often almost singular.
    batch, length, num_features = inputs.shape
    columns = targets.reshape(batch, length, -1).astype(inputs.dtype)
    if num_features > length:  # all inputs lie in T dimensions, and a rotation into these changes no prediction
        inputs = jnp.linalg.qr(inputs.swapaxes(1, 2), mode="r").swapaxes(1, 2)
        num_features = length
    empty = _System(
        jnp.zeros((), jnp.int32),
        jnp.zeros((num_features, num_features), inputs.dtype),
        jnp.zeros((num_features, num_features + columns.shape[-1]), inputs.dtype),
    )
    predictions = jax.vmap(lambda x, y: jax.lax.scan(_predict_and_add, empty, (x, y))[1])(inputs, columns)
    return predictions.reshape(targets.shape)


def _predict_and_add(system: _System, example: tuple[jax.Array, jax.Array]) -> tuple[_System, jax.Array]:
    """Predicts the targets [C] of an example (x [X], y [C]), and then adds the example to the system."""
    (rank, basis, rows), (x, y) = system, example
    num_features = len(x)
    inside = jnp.arange(num_features) < rank
    coordinates = einsum("ix,x->i", basis, x)

    # Directions that are not in the basis yet have coordinate 0, so that any number on their diagonal will do.
    factor = jnp.where(jnp.diag(~inside), 1, rows[:, :num_features])
    solution = jax.lax.linalg.triangular_solve(factor, rows[:, num_features:], left_side=True)
    prediction = einsum("i,ic->c", coordinates, solution)

    outside = x
    for _ in range(2):  # the second projection removes what the rounding of the first has left along the basis
        outside -= einsum("ix,i->x", basis, einsum("ix,x->i", basis, outside))
    size = jnp.linalg.norm(outside)
    least = _ROUNDING * num_features * jnp.finfo(x.dtype).eps * jnp.linalg.norm(x)
    is_new = (size > least) & (rank < num_features)
    basis = basis.at[rank].add(jnp.where(is_new, outside / jnp.where(is_new, size, 1), 0))
    coordinates = coordinates.at[rank].add(jnp.where(is_new, size, 0))
    added = jnp.concatenate([rows, jnp.concatenate([coordinates, y])[None]])
    rows = jnp.linalg.qr(added, mode="r")[:num_features]
    return _System(rank + is_new, basis, rows), prediction
