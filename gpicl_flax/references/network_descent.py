"""Gradient descent on the network that functions are drawn from: Adam on the examples before given positions."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpicl_flax.tasks.families.function_classes import HIDDEN_SIZE

LEARNING_RATE = 5e-3
NUM_STEPS = 200  # by then errors have reached their minimum, at 20 inputs and up to 100 examples


def network_descent(
    inputs: np.ndarray, targets: np.ndarray, positions: Sequence[int], num_steps: int = NUM_STEPS
) -> np.ndarray:
    """Predicts the number at each given position by a network with one hidden layer of ReLUs, trained from scratch.

    Every step of Adam is on the mean squared error of all examples before the position. It is the comparison of Garg et
    al. 2022 (arXiv 2208.01066, Section 4) for functions that are such networks; the number of steps and the initial
    distribution are ours.

    Args:
      inputs: [B, T, X].
      targets: [B, T].
      positions: P positions in 0..T-1.
      num_steps: the steps of Adam.

    Returns:
      Predictions [B, P] float32; 0 without examples.
    """
    predictions = np.zeros((len(inputs), len(positions)), np.float32)
    for column, position in enumerate(positions):
        if position:
            predictions[:, column] = _predict(inputs, targets, np.int32(position), num_steps)
    return predictions


@functools.partial(jax.jit, static_argnums=3)
def _predict(inputs: jax.Array, targets: jax.Array, position: jax.Array, num_steps: int) -> jax.Array:
    """Returns the predictions [B] at one position."""
    length, num_features = inputs.shape[1:]
    earlier = jnp.arange(length) < position
    hidden_key, output_key = jax.random.split(jax.random.key(0))
    initial = {
        "hidden": jax.random.normal(hidden_key, (num_features, HIDDEN_SIZE)) * math.sqrt(2 / num_features),
        "output": jax.random.normal(output_key, (HIDDEN_SIZE,)) / math.sqrt(HIDDEN_SIZE),
    }
    optimizer = optax.adam(LEARNING_RATE)

    def apply(params, x):
        return jax.nn.relu(x @ params["hidden"]) @ params["output"]

    def one(x, y):
        def loss(params):
            return jnp.square(apply(params, x) - y).mean(where=earlier)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (initial, optimizer.init(initial)), length=num_steps)
        return apply(params, x[position])

    return jax.vmap(one)(inputs, targets)
