"""The random keys of a run on the device, one for each use."""

import jax
import numpy as np


def task_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key that all tasks of a run derive from; seed in 0..2**32-1."""
    return jax.random.fold_in(_root(seed), 0)


def init_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key of the initial parameters."""
    return jax.random.fold_in(_root(seed), 1)


def learner_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key for the random numbers of learners in a meta-test, such as the SGD baseline's classifiers."""
    return jax.random.fold_in(_root(seed), 2)


def sequence_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key that the sequences of a family without a base dataset derive from."""
    return jax.random.fold_in(_root(seed), 3)


def class_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key of the classes that are the same in all tasks of a run."""
    return jax.random.fold_in(_root(seed), 4)


def mixture_key(seed: int | np.uint32 | jax.Array) -> jax.Array:
    """Returns the key that determines the family of each task of a mixture."""
    return jax.random.fold_in(_root(seed), 5)


def _root(seed: int | np.uint32 | jax.Array) -> jax.Array:
    # The generator is named, because others do not give each of many vmapped keys its own stream.
    return jax.random.key(seed, impl="threefry2x32")
