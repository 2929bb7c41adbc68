"""Random functions of the informative columns of a table: networks and trees of random depth."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpicl_flax.tasks.families.random_columns import Columns
from gpicl_flax.tasks.projections.normals import standard_normals

TREE_DEPTH = 6  # the largest
THRESHOLD_SCALE = 0.7  # in standard deviations of a column
SLOPE = 0.1  # of the linear part of a tree
NUM_LAYERS = 3  # the most hidden layers of a network
HIDDEN_SIZE = 32
GAINS = 0.25, 2.0


class TableTree(NamedTuple):
    """A decision tree with a small linear part. Node n goes on to 2 n + 1, or to 2 n + 2 above its threshold.

    Attributes:
      columns: [2^TREE_DEPTH - 1] int32, those that the inner nodes compare.
      thresholds: [2^TREE_DEPTH - 1].
      leaves: [2^TREE_DEPTH].
      slopes: [F], 0 for a column that is not informative.
      depth: a scalar; nodes from this depth on always go to 2 n + 1.
    """

    columns: jax.Array
    thresholds: jax.Array
    leaves: jax.Array
    slopes: jax.Array
    depth: jax.Array


class TableNetwork(NamedTuple):
    """A network whose hidden layers all have tanh or all have ReLUs.

    Attributes:
      first: [F, HIDDEN_SIZE], 0 for a column that is not informative.
      inner: [NUM_LAYERS - 1, HIDDEN_SIZE, HIDDEN_SIZE].
      biases: [NUM_LAYERS, HIDDEN_SIZE].
      output: [HIDDEN_SIZE].
      depth: the number of hidden layers; the other ones change nothing.
      has_relus: whether it has ReLUs.
    """

    first: jax.Array
    inner: jax.Array
    biases: jax.Array
    output: jax.Array
    depth: jax.Array
    has_relus: jax.Array


def draw_tree(key: jax.Array, columns: Columns) -> TableTree:
    """Draws a tree of depth 1 to `TREE_DEPTH`, with leaves ~ N(0, 1).

    A leaf can hold more of the rows than a class should. Then the linear part, whose standard deviation is about
    `SLOPE`, divides them.
    """
    keys = jax.random.split(key, 5)
    inner = 2**TREE_DEPTH - 1
    ranks = jax.random.randint(keys[0], (inner,), 0, columns.num_informative)
    return TableTree(
        columns.order[ranks],
        THRESHOLD_SCALE * jax.random.normal(keys[1], (inner,)),
        jax.random.normal(keys[2], (inner + 1,)),
        SLOPE * _of_informative(columns) * jax.random.normal(keys[3], columns.order.shape),
        jax.random.randint(keys[4], (), 1, TREE_DEPTH + 1),
    )


def follow_tree(tree: TableTree, values: jax.Array) -> jax.Array:
    """Returns the tree's output [T] for rows [T, F]."""
    node = jnp.zeros(len(values), jnp.int32)
    for level in range(TREE_DEPTH):
        value = jnp.take_along_axis(values, tree.columns[node][:, None], axis=1)[:, 0]
        node = 2 * node + 1 + ((value > tree.thresholds[node]) & (level < tree.depth))
    return tree.leaves[node - len(tree.columns)] + jnp.matmul(values, tree.slopes, precision="highest")


def draw_network(key: jax.Array, columns: Columns) -> TableNetwork:
    """Draws a network with 1 to `NUM_LAYERS` hidden layers.

    Their inputs have variance 1, times the square of a gain that is log-uniform in `GAINS`: from almost linear to
    saturated.
    """
    keys = jax.random.split(key, 7)
    low, high = (math.log(gain) for gain in GAINS)
    gain = jnp.exp(jax.random.uniform(keys[0], minval=low, maxval=high))
    inner = standard_normals(keys[1], (NUM_LAYERS - 1) * HIDDEN_SIZE, HIDDEN_SIZE)
    return TableNetwork(
        gain * _of_informative(columns)[:, None] * standard_normals(keys[2], columns.order.shape[0], HIDDEN_SIZE),
        gain * inner.reshape(NUM_LAYERS - 1, HIDDEN_SIZE, HIDDEN_SIZE) / math.sqrt(HIDDEN_SIZE),
        jax.random.normal(keys[3], (NUM_LAYERS, HIDDEN_SIZE)),
        jax.random.normal(keys[4], (HIDDEN_SIZE,)),
        jax.random.randint(keys[5], (), 1, NUM_LAYERS + 1),
        jax.random.bernoulli(keys[6]),
    )


def apply_network(network: TableNetwork, values: jax.Array) -> jax.Array:
    """Returns the network's output [T] for rows [T, F]."""

    def activate(inputs):
        return jnp.where(network.has_relus, jax.nn.relu(inputs), jnp.tanh(inputs))

    hidden = activate(jnp.matmul(values, network.first, precision="highest") + network.biases[0])
    for layer in range(1, NUM_LAYERS):
        products = jnp.matmul(hidden, network.inner[layer - 1], precision="highest")
        hidden = jnp.where(layer < network.depth, activate(products + network.biases[layer]), hidden)
    return jnp.matmul(hidden, network.output, precision="highest")


def _of_informative(columns: Columns) -> jax.Array:
    """Returns 1 / sqrt(d) for informative columns and 0 for others, [F]."""
    return columns.informative / jnp.sqrt(columns.num_informative)
