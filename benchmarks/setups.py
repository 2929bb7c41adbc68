"""What the benchmarks have in common: a training on random grey values, ready to be timed."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.tasks.projections import input_space
from gpicl_flax.training import partitioning
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.state import init_states
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches

IMAGE_SHAPE = (28, 28, 1)  # of MNIST, whatever the input shape


def noise(input_shape: tuple[int, ...], num_examples: int = 60_000) -> BaseDataset:
    """Random grey values in the place of MNIST."""
    stored = input_space.stored_shape(IMAGE_SHAPE, input_shape)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (num_examples, math.prod(stored)), dtype=np.uint8)
    split = Split(inputs, rng.integers(0, 10, num_examples).astype(np.int32))
    return BaseDataset("noise", split, split, 127.5, 74.0, input_shape, 10, stored_shape=stored)


class TimedTraining:
    """Training steps of a stack of `num_members` equal runs but for their seeds, `steps` a dispatch."""

    def __init__(
        self,
        model: SequenceModel,
        tasks: ProjectedImages,
        *,
        num_members: int = 1,
        steps: int = 4,
        telemetry: bool = False,
    ):
        self.model, self.tasks, self.steps = model, tasks, steps
        self.dataset = noise(tasks.input_shape)
        self.projection = tasks.projection_spec(self.dataset.stored_shape)
        self.optimizer = adam()
        self.mesh = partitioning.MeshShape().build(num_members)
        self.task_batches = TaskBatches(tasks, self.projection, self.mesh, "device", num_members)
        seeds = list(range(num_members))
        with jax.set_mesh(self.mesh):
            self.states = init_states(model, [self.optimizer] * num_members, tasks, seeds=seeds, mesh=self.mesh)
            self._train_steps = make_train_steps(model, self.optimizer, self.task_batches)
            self.train = self.task_batches.put_on_mesh(self.dataset, self.dataset.train)
            self.data = self.train.data
            streams = [Stream(tasks, seed) for seed in seeds]
            with contextlib.closing(TrainingBatches(streams, self.dataset.train, steps_per_batch=steps)) as batches:
                self.batch = partitioning.shard_stacked_batches(self.mesh, next(batches))
            self.run_inputs = partitioning.shard_members(
                self.mesh, PerRunInputs(np.array(seeds, np.uint32), np.full(num_members, 0.1, np.float32))
            )
            if telemetry:
                self.run_inputs = self.run_inputs._replace(initial_params=jax.tree.map(jnp.copy, self.states.params))

    def __call__(self) -> jax.Array:
        """One dispatch."""
        with jax.set_mesh(self.mesh):
            self.states, metrics, _ = self._train_steps(self.states, self.run_inputs, self.data, self.batch)
        return metrics["loss"]

    def compiled(self) -> jax.stages.Compiled:
        """The program of a dispatch."""
        with jax.set_mesh(self.mesh):
            return self._train_steps.lower(self.states, self.run_inputs, self.data, self.batch).compile()


def seconds(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median time of each function. They take turns, so that all of them meet the same machine."""
    for function in functions:  # compiles
        jax.block_until_ready(function())
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]
