"""Random functions: the rows of a random table, with classes by a random network or tree.

It is what a row of a real table may look like; the priors of TabPFN (Hollmann et al. 2022, arXiv 2207.01848) and TabICL
(Qu et al. 2025, arXiv 2502.05564) are its kin.
"""

import dataclasses
from typing import Annotated, NamedTuple

import gin
import jax
import jax.numpy as jnp

from gpicl_flax.bindings.kinds import Range, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families import random_columns, table_functions
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.families.random_columns import Columns
from gpicl_flax.tasks.families.table_functions import TableNetwork, TableTree
from gpicl_flax.tasks.projections.normals import standard_normals
from gpicl_flax.tasks.targets import Classes

LAYOUTS = ("padded", "projected")
MOST_FEATURES = 100  # informative ones, by default
NUM_QUANTILE_ROWS = 512  # that a task draws to find where its classes end


class Table(NamedTuple):
    """A task.

    Attributes:
      columns: those of the table.
      is_tree: whether the tree determines classes; otherwise the network does.
      tree, network: functions of a row.
      cuts: [C - 1], ascending, the outputs of the function at which classes end.
      labels: [C] int32, a permutation: the label of each class.
      projection: [F, X], from columns to inputs; None: they are padded.
    """

    columns: Columns
    is_tree: jax.Array
    tree: TableTree
    network: TableNetwork
    cuts: jax.Array
    labels: jax.Array
    projection: jax.Array | None

    def evaluate(self, values: jax.Array) -> jax.Array:
        """Returns the function's output [T] for rows [T, F]."""
        by_tree = table_functions.follow_tree(self.tree, values)
        return jnp.where(self.is_tree, by_tree, table_functions.apply_network(self.network, values))


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomFunctions(TaskFamily):
    """Classes of the rows of a random table, by a random network or a random tree of its informative columns.

    Columns are of mixed scale; a part is irrelevant, correlated, discretised, or missing at random (see
    `random_columns.draw_columns`). The function's output is cut into classes at its own quantiles, so that they are
    about equally frequent in each task, and labels are permuted. The mean square of inputs is 1, or a little less where
    values are missing.

    Attributes:
      num_classes: C.
      dimensions: X, the inputs, and the most columns that a table can have.
      min_features, max_features: the range of the number of informative columns; None: at most 100, and at most X.
      tree_probability: the probability that a task's function is a tree.
      layout: 'padded': an input is a column, and those beyond the last column are 0; 'projected': inputs are columns
        times a random matrix with entries N(0, 1/X).
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

    Raises:
      UsageError: a value is out of its range.
    """

    num_classes: Width = 10
    dimensions: Width = 100
    min_features: Width = 2
    max_features: Width | None = None
    tree_probability: Annotated[float, Range(0, 1)] = 0.5
    layout: str = "padded"

    def __post_init__(self):
        super().__post_init__()
        name, most = self.gin_name, self._most_features
        if most > self.dimensions:
            raise UsageError(f"{name}.max_features = {most} is more than {name}.dimensions = {self.dimensions}")
        if self.min_features > most:
            raise UsageError(
                f"{name}.min_features = {self.min_features} is more than the {most} features that a task can have; "
                f"raise {name}.dimensions or max_features"
            )
        if self.layout not in LAYOUTS:
            raise UsageError(f"{name}.layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")

    @property
    def _most_features(self) -> int:
        return min(MOST_FEATURES, self.dimensions) if self.max_features is None else self.max_features

    @property
    def num_features(self) -> int:
        return self.dimensions

    @property
    def targets(self) -> Classes:
        return Classes(self.num_classes)

    @property
    def _num_places(self) -> int:
        """F, the most columns of a table: as many as there can be with the most informative ones."""
        most = int(self._most_features / (1 - random_columns.MOST_IRRELEVANT))
        return min(self.dimensions, most)

    def draw_task(self, key: jax.Array) -> Table:
        """Draws columns, a function of them, and where its classes end."""
        keys = jax.random.split(key, 7)
        columns = random_columns.draw_columns(keys[0], self._num_places, self.min_features, self._most_features)
        table = Table(
            columns,
            jax.random.bernoulli(keys[1], self.tree_probability),
            table_functions.draw_tree(keys[2], columns),
            table_functions.draw_network(keys[3], columns),
            jnp.zeros(self.num_classes - 1),
            jax.random.permutation(keys[4], self.num_classes),
            self._draw_projection(keys[5]),
        )
        outputs = table.evaluate(random_columns.draw_values(keys[6], columns, NUM_QUANTILE_ROWS))
        return table._replace(cuts=jnp.quantile(outputs, jnp.arange(1, self.num_classes) / self.num_classes))

    def _draw_projection(self, key: jax.Array) -> jax.Array | None:
        if self.layout == "padded":
            return None
        return standard_normals(key, self._num_places, self.dimensions) / jnp.sqrt(self.dimensions)

    def draw_sequence(self, task: Table, key: jax.Array) -> Sequences:
        """Returns x [T, X] and y [T]."""
        value_key, missing_key = jax.random.split(key)
        values = random_columns.draw_values(value_key, task.columns, self.sequence_length)
        classes = (task.evaluate(values)[:, None] > task.cuts).sum(axis=1)
        shown = random_columns.show(missing_key, task.columns, values) * jnp.sqrt(self.dimensions)
        if task.projection is None:
            inputs = jnp.pad(shown, ((0, 0), (0, self.dimensions - self._num_places)))
        else:
            inputs = jnp.matmul(shown, task.projection, precision="highest")
        return Sequences(inputs, task.labels[classes])
