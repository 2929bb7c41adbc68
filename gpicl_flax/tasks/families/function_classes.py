"""The function classes of Garg et al. 2022 (arXiv 2208.01066, Section 3 and 4): y = f(x) for x ~ N(0, I), no noise."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import gin
import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.targets import Numbers

SPARSITY = 3  # coordinates that a sparse linear function depends on
TREE_DEPTH = 4
HIDDEN_SIZE = 100  # of a ReLU network


class Tree(NamedTuple):
    """A decision tree. Node n goes on to 2 n + 1, or to 2 n + 2 where its coordinate is positive.

    coordinates [2^depth - 1] int32 belong to the inner nodes; values [2^depth] float32 to the leaves.
    """

    coordinates: jax.Array
    values: jax.Array


class Network(NamedTuple):
    """A network with one hidden layer of ReLUs: hidden [X, H] and output [H], float32."""

    hidden: jax.Array
    output: jax.Array


class FunctionClass(NamedTuple):
    """A distribution of functions.

    Attributes:
      draw_task: (key, X) -> the arrays of a function.
      evaluate: (these arrays, inputs [T, X]) -> f of each input, [T] float32.
      mean_square: X -> the mean of f(x)^2, which published errors are divided by. It is the loss of predicting 0.
    """

    draw_task: Callable[[jax.Array, int], Any]
    evaluate: Callable[[Any, jax.Array], jax.Array]
    mean_square: Callable[[int], float]


def _draw_weights(key, num_features):
    return jax.random.normal(key, (num_features,))


def _draw_sparse_weights(key, num_features):
    weight_key, coordinate_key = jax.random.split(key)
    kept = jax.random.permutation(coordinate_key, num_features) < SPARSITY
    return jnp.where(kept, _draw_weights(weight_key, num_features), 0)


def _linear(weights, inputs):
    return jnp.matmul(inputs, weights, precision="highest")


def _draw_tree(key, num_features):
    coordinate_key, value_key = jax.random.split(key)
    coordinates = jax.random.randint(coordinate_key, (2**TREE_DEPTH - 1,), 0, num_features)
    return Tree(coordinates, jax.random.normal(value_key, (2**TREE_DEPTH,)))


def _follow_tree(tree, inputs):
    node = jnp.zeros(len(inputs), jnp.int32)
    for _ in range(TREE_DEPTH):
        coordinate = jnp.take_along_axis(inputs, tree.coordinates[node][:, None], axis=1)[:, 0]
        node = 2 * node + 1 + (coordinate > 0)
    return tree.values[node - len(tree.coordinates)]


def _draw_network(key, num_features):
    hidden_key, output_key = jax.random.split(key)
    hidden = jax.random.normal(hidden_key, (num_features, HIDDEN_SIZE))
    return Network(hidden, math.sqrt(2 / HIDDEN_SIZE) * jax.random.normal(output_key, (HIDDEN_SIZE,)))


def _apply_network(network, inputs):
    return _linear(network.output, jax.nn.relu(jnp.matmul(inputs, network.hidden, precision="highest")))


FUNCTION_CLASSES = {
    "linear": FunctionClass(_draw_weights, _linear, float),
    "sparse_linear": FunctionClass(_draw_sparse_weights, _linear, lambda num_features: float(SPARSITY)),
    "tree": FunctionClass(_draw_tree, _follow_tree, lambda num_features: 1.0),
    "relu_network": FunctionClass(_draw_network, _apply_network, float),
}


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionClasses(TaskFamily):
    """y = f(x) for x ~ N(0, I_d), with a function f of one class for a task.

    That paper divides squared errors by the mean of f(x)^2, which is the chance loss here: d, 3 (sparse), 1 (tree), d.

    Attributes:
      function_class: 'linear': f(x) = w . x with w ~ N(0, I_d); 'sparse_linear': the same with 3 weights that are not
        zero; 'tree': a decision tree of depth 4 on the signs of coordinates, with leaves ~ N(0, 1); 'relu_network': one
        hidden layer of 100 ReLUs.
      dimensions: d, which is X.
      sequence_length: T, the examples of one sequence; in that paper 41 for linear functions, 101 for the others.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

    Raises:
      UsageError: a value is out of its range.
    """

    function_class: str = "linear"
    dimensions: Width = 20
    sequence_length: Width = 41
    task_batch_size: Width = 64

    curricula: ClassVar[tuple[str, ...]] = ("sequence_length", "dimensions")

    def __post_init__(self):
        super().__post_init__()
        if self.function_class not in FUNCTION_CLASSES:
            names = ", ".join(FUNCTION_CLASSES)
            raise UsageError(f"{self.gin_name}.function_class must be one of {names}, not {self.function_class!r}")
        if self.function_class == "sparse_linear" and self.dimensions < SPARSITY:
            raise UsageError(f"{self.gin_name}.dimensions = {self.dimensions} is less than {SPARSITY}")

    @property
    def num_features(self) -> int:
        return self.dimensions

    @property
    def targets(self) -> Numbers:
        """Numbers with the mean square of the functions as variance."""
        return Numbers(variance=FUNCTION_CLASSES[self.function_class].mean_square(self.dimensions))

    def draw_task(self, key: jax.Array) -> Any:
        """Returns the arrays of a function."""
        return FUNCTION_CLASSES[self.function_class].draw_task(key, self.dimensions)

    def draw_sequence(self, task: Any, key: jax.Array, num_active: jax.Array | None = None) -> Sequences:
        """Returns x [T, d] and y [T]. Inputs from `num_active` on are zero; None: none of them."""
        inputs = jax.random.normal(key, (self.sequence_length, self.dimensions))
        if num_active is not None:
            inputs = jnp.where(jnp.arange(self.dimensions) < num_active, inputs, 0)
        return Sequences(inputs, FUNCTION_CLASSES[self.function_class].evaluate(task, inputs))

    # A curriculum may leave inputs out (`Curriculum.dimensions`), which is a number of the run.

    def numbers(self) -> np.float32:
        """Returns d."""
        return np.float32(self.dimensions)

    def unseen_numbers(self, numbers: Any) -> float:
        """Returns d: unseen tasks have all inputs."""
        return float(self.dimensions)

    def make_sequences(
        self,
        drawing: Any,
        seed: jax.Array | np.uint32,
        batch: Mapping[str, Any],
        data: Any,
        numbers: Any,
        *,
        max_bytes: int,
        num_shards: int,
    ) -> Sequences:
        num_active = jnp.broadcast_to(numbers, batch["task_ids"].shape)
        own = {**batch, "num_active": num_active}
        return super().make_sequences(drawing, seed, own, data, numbers, max_bytes=max_bytes, num_shards=num_shards)
