"""The columns of a random table: informative and irrelevant, correlated, discretised, missing, and of mixed scale."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.tasks.projections.normals import standard_normals

MOST_IRRELEVANT = 0.5  # the largest share of irrelevant ones among the columns of a task
NUM_FACTORS = 4  # which correlated columns have in common
MOST_LEVELS = 8  # of a discretised column; the fewest are 2
MOST_DISCRETE = 0.5  # the largest expected share of discretised columns
MOST_MISSING = 0.3  # the largest rate at which values are missing


class Columns(NamedTuple):
    """The columns of a task, in F places of which the first n are used.

    Attributes:
      num_informative: d, a scalar int32.
      order: [F] int32; its first d entries are the informative columns, its first n all columns.
      scales: [F], 0 where a place is not used; the sum of their squares is 1.
      loadings: [NUM_FACTORS, F], the weights of the common factors, 0 for a column that is independent of others.
      levels: [F], the number of values of a discretised column; 0: it is continuous. The first of `order` is.
      missing_rate: the probability that a value is missing.
    """

    num_informative: jax.Array
    order: jax.Array
    scales: jax.Array
    loadings: jax.Array
    levels: jax.Array
    missing_rate: jax.Array

    @property
    def informative(self) -> jax.Array:
        """Returns whether a column is informative, [F] bool."""
        places = jnp.arange(len(self.order))
        return jnp.zeros(len(places), bool).at[self.order].set(places < self.num_informative)


def draw_columns(key: jax.Array, num_places: int, min_informative: int, max_informative: int) -> Columns:
    """Draws the columns of a task.

    The number of informative ones is log-uniform, so that narrow tables are not rare. Beside them there are irrelevant
    ones, a share of all columns that is uniform up to `MOST_IRRELEVANT`, as far as there are places. Scales are
    log-normal. A share of the columns, uniform for a task, is correlated: each is a random mixture of its own part and
    of factors that all share. Another share is discretised. In half of the tasks, values are missing at random.

    Args:
      key: that of the task.
      num_places: F.
      min_informative, max_informative: the range of d; at most F.
    """
    keys = jax.random.split(key, 10)
    ratio = math.log((max_informative + 1) / min_informative)
    drawn = jnp.floor(min_informative * jnp.exp(ratio * jax.random.uniform(keys[0]))).astype(jnp.int32)
    num_informative = jnp.clip(drawn, min_informative, max_informative)
    share = jax.random.uniform(keys[1], maxval=MOST_IRRELEVANT)
    num_irrelevant = jnp.floor(num_informative * share / (1 - share)).astype(jnp.int32)
    used = jnp.arange(num_places) < num_informative + num_irrelevant
    order = jnp.argsort(jnp.where(used, jax.random.uniform(keys[2], (num_places,)), 1.0)).astype(jnp.int32)

    scales = jnp.where(used, jnp.exp(jax.random.normal(keys[3], (num_places,))), 0)
    directions = jax.random.normal(keys[4], (NUM_FACTORS, num_places))
    shares = jax.random.uniform(keys[5], (2,), maxval=jnp.array([1, MOST_DISCRETE]))
    flags = jax.random.uniform(keys[6], (2, num_places)) < shares[:, None]
    strengths = jnp.where(flags[0], jax.random.uniform(keys[7], (num_places,)), 0)
    levels = jax.random.randint(keys[8], (num_places,), 2, MOST_LEVELS + 1)
    # One informative column stays continuous, or there might be fewer different rows than classes.
    is_discrete = flags[1] & (jnp.arange(num_places) != order[0])
    rate = jax.random.uniform(keys[9], minval=-MOST_MISSING, maxval=MOST_MISSING)
    return Columns(
        num_informative,
        order,
        scales / jnp.linalg.norm(scales),
        strengths * directions / jnp.linalg.norm(directions, axis=0),
        jnp.where(is_discrete, levels, 0),
        jnp.maximum(rate, 0),
    )


def draw_values(key: jax.Array, columns: Columns, count: int) -> jax.Array:
    """Draws rows [count, F] with mean 0 and variance 1 in every column: before values are missing, and unscaled."""
    num_places = columns.order.shape[0]
    normals = standard_normals(key, count, num_places + NUM_FACTORS)
    own = jnp.sqrt(1 - jnp.square(columns.loadings).sum(axis=0))
    values = own * normals[:, :num_places]
    values += jnp.matmul(normals[:, num_places:], columns.loadings, precision="highest")
    # Quantiles cut a discretised column into equally frequent levels, which stand at equal distances.
    levels = columns.levels
    level = jnp.clip(jnp.floor(levels * jax.scipy.stats.norm.cdf(values)), 0, levels - 1)
    centred = (level - (levels - 1) / 2) / jnp.sqrt(jnp.maximum(jnp.square(levels) - 1, 1) / 12)
    return jnp.where(levels > 0, centred, values)


def show(key: jax.Array, columns: Columns, values: jax.Array) -> jax.Array:
    """Returns rows [T, F] as a learner sees them: scaled, and 0, which is the mean, where a value is missing."""
    missing = jax.random.bernoulli(key, columns.missing_rate, values.shape)
    return columns.scales * jnp.where(missing, 0, values)
