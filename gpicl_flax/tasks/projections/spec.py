"""The kinds of random projection: drawn completely, in the span of the images, or only for one sequence.

All of them project with entries that are iid N(0, 1/X), the projection of Section 3.1 of the paper. A projection A is
drawn column by column in an orthonormal basis of the input space, which does not change its distribution.

- span: the columns of basis vectors along which some image of the base dataset has a coordinate. Images of 28x28x1
  that grow to 32x32x3 have 784 coordinates instead of 3,072. For a dataset of another stored shape, the further
  columns are drawn as well, so that tasks are the same for it.
- dense: all X columns. The tasks are the same, at the cost that they would have without the basis. It is the reference.
- gram: for X_s [T, X], the examples of one sequence, X_s A^T is distributed as L G, where L L^T = X_s X_s^T / X and
  G [T, X] is iid standard normal. This takes T rows of draws instead of X, but no two sequences can share a projection.
  So it is only for an unbounded number of tasks, which then cannot be replayed.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.projections import input_space
from gpicl_flax.tasks.projections.normals import standard_normals

KINDS = ("dense", "span", "gram")

# Below this ratio of the draws of span and gram, projections are a small part of a step, and tasks that can be replayed
# are more valuable.
_GRAM_SAVES = 4


@dataclasses.dataclass(frozen=True)
class ProjectionSpec:
    """How the projections of a run are drawn, determined by its settings and the shape of its base dataset alone.

    Attributes:
      kind: one of KINDS.
      basis_shape: the stored shape that the basis begins with, that of the run's base dataset.
      input_shape: its product is X.
    """

    kind: str
    basis_shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    def __post_init__(self):
        for name in ("basis_shape", "input_shape"):  # they are lists if they come from a file
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def from_run_info(cls, values: Mapping[str, Any]) -> "ProjectionSpec":
        """Reads the result of `as_run_info` from run.json."""
        return cls(values["form"], values["basis_shape"], values["input_shape"])

    def as_run_info(self) -> dict[str, Any]:
        """Returns the entry of run.json, in which the kind has been named 'form' since the first version."""
        return {"form": self.kind, "basis_shape": self.basis_shape, "input_shape": self.input_shape}

    @property
    def replayable(self) -> bool:
        """Whether a task can be applied to examples of more than one sequence."""
        return self.kind != "gram"

    @property
    def num_features(self) -> int:
        """X, the number of input features."""
        return math.prod(self.input_shape)

    def coordinates(self, stored_shape: tuple[int, ...]) -> input_space.Coordinates:
        """Returns the map from examples that are stored in that shape to the coordinates that are projected."""
        if self.kind == "gram":  # inner products are the same in any basis
            return input_space.coordinates(stored_shape, self.input_shape, basis=stored_shape)
        whole = self.kind == "dense"
        return input_space.coordinates(stored_shape, self.input_shape, basis=self.basis_shape, whole=whole)


def choose(
    kind: str,
    *,
    stored_shape: tuple[int, ...],
    input_shape: tuple[int, ...],
    sequence_length: int,
    replayed: bool,
) -> ProjectionSpec:
    """Returns the spec for a setting, 'auto' or one of KINDS, and a base dataset of that stored shape.

    'auto' is 'gram' if no task is ever used twice and it needs at most a quarter of the draws, otherwise 'span'.

    Args:
      kind: the setting.
      stored_shape: the shape in which the base dataset is stored.
      input_shape: the input shape.
      sequence_length: T.
      replayed: whether two sequences of the training can share a task.

    Raises:
      UsageError: 'gram' cannot replay tasks.
    """
    if kind == "gram" and replayed:
        raise UsageError(
            "TaskDistribution.projection = 'gram' gives every sequence a projection of its own: it needs num_tasks = "
            "None and sequences_per_task = 1"
        )
    if kind == "auto":
        gram = not replayed and _GRAM_SAVES * sequence_length <= math.prod(stored_shape)
        kind = "gram" if gram else "span"
    return ProjectionSpec(kind, stored_shape, input_shape)


def draw(key: jax.Array, num_coordinates: int, num_features: int) -> jax.Array:
    """Draws the transposed projection [R, X]: row r is the column of A along basis vector r."""
    return standard_normals(key, num_coordinates, num_features) / jnp.sqrt(num_features)


def gram_inputs(key: jax.Array, coordinates: jax.Array, num_features: int) -> jax.Array:
    """Projects coordinates [T, R] of one sequence to inputs [T, X], with a projection that no other sequence shares."""
    gram = jnp.matmul(coordinates, coordinates.T, precision="highest") / num_features
    # Repeated examples make the matrix singular, so a term of the size of its rounding is added. It makes the
    # projections of equal examples differ by about 0.5% of their norm, for T = 100.
    jitter = jnp.finfo(gram.dtype).eps * jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
    factor = _cholesky(gram, jitter)

    # Where many of the summed products are equal, as those of flat images, their rounding is larger than that, and the
    # same factor takes more work. It is in a loop, because under vmap `cond` would always do it. This loop makes no
    # iteration unless a sequence needs it, and one if any does.
    def work(state):
        # The barrier keeps the compiler from moving the work, which does not depend on the state, out of the loop.
        _, hidden = jax.lax.optimization_barrier((state, (gram, jitter, coordinates)))
        return _singular_cholesky(hidden[0], hidden[1], hidden[2] / jnp.sqrt(num_features)), jnp.array(False)

    factor, _ = jax.lax.while_loop(lambda state: state[1], work, (factor, ~jnp.isfinite(factor).all()))
    return factor @ standard_normals(key, len(gram), num_features)


def _cholesky(gram: jax.Array, jitter: jax.Array) -> jax.Array:
    return jnp.linalg.cholesky(gram + jitter * jnp.eye(len(gram)), symmetrize_input=False)


def _singular_cholesky(gram: jax.Array, jitter: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the Cholesky factor of rows @ rows^T + jitter I, where `gram`, that product, is rounded too much.

    The rounding of sums over R products, and of a factorisation of T rows, is at most (R + T) / 2 of the jitter. So
    there is a first factor with the jitter times R + T. Its inverse makes the rows almost orthogonal: the eigenvalues
    of their products are then at least about 1 / (R + T), which is far above rounding. So there is a second factor,
    and the two together are exact to rounding.
    """
    product = functools.partial(jnp.matmul, precision="highest")
    first = _cholesky(gram, sum(rows.shape) * jitter)
    end = jnp.sqrt(jitter) * jnp.eye(len(gram))  # rows @ rows^T + jitter I is a product of [rows, end]
    near_end = jax.lax.linalg.triangular_solve(first, end, left_side=True, lower=True)
    near = jnp.concatenate([product(near_end, rows / jnp.sqrt(jitter)), near_end], axis=1)
    return product(first, jnp.linalg.cholesky(product(near, near.T), symmetrize_input=False))
