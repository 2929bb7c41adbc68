"""Gradient descent on a network of ReLUs, against numpy float64."""

import math

import jax
import numpy as np

from gpicl_flax.references import network_descent
from gpicl_flax.references.least_squares import least_squares
from gpicl_flax.tasks.families import FunctionClasses


def expected(x, y, query, num_steps):
    """The prediction for one input, after full-batch steps of Adam from the same initial network."""
    hidden_key, output_key = jax.random.split(jax.random.key(0))
    hidden = np.asarray(jax.random.normal(hidden_key, (x.shape[1], 100)), np.float64) * math.sqrt(2 / x.shape[1])
    params = [hidden, np.asarray(jax.random.normal(output_key, (100,)), np.float64) / 10]
    first, second = [0.0, 0.0], [0.0, 0.0]
    for step in range(1, num_steps + 1):
        active = np.maximum(x @ params[0], 0)
        errors = 2 * (active @ params[1] - y) / len(y)
        gradients = [x.T @ (errors[:, None] * params[1] * (active > 0)), active.T @ errors]
        for i, g in enumerate(gradients):
            first[i], second[i] = 0.9 * first[i] + 0.1 * g, 0.999 * second[i] + 0.001 * g**2
            update = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
            params[i] = params[i] - 5e-3 * update
    return np.maximum(query @ params[0], 0) @ params[1]


def test_predictions_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 9, 4)).astype(np.float32), rng.normal(size=(2, 9)).astype(np.float32)
    found = network_descent.network_descent(inputs, targets, [0, 3, 8], num_steps=5)
    assert found.shape == (2, 3) and (found[:, 0] == 0).all()
    for row in range(2):
        for column, t in ((1, 3), (2, 8)):
            x, y = inputs[row, : t + 1].astype(np.float64), targets[row, :t].astype(np.float64)
            np.testing.assert_allclose(found[row, column], expected(x[:-1], y, x[-1], 5), rtol=1e-3, atol=1e-3)


def test_it_learns_networks_better_than_least_squares_does():
    family = FunctionClasses(function_class="relu_network", sequence_length=101)
    keys = jax.random.split(jax.random.key(0), 24)
    sequences = jax.vmap(lambda key: family.draw_sequence(family.draw_task(key), jax.random.fold_in(key, 1)))(keys)
    inputs, targets = np.asarray(sequences.inputs), np.asarray(sequences.targets)
    errors = np.square(network_descent.network_descent(inputs, targets, [50, 100]) - targets[:, [50, 100]]).mean(0)
    linear = np.square(np.asarray(least_squares(inputs, targets)) - targets)[:, [50, 100]].mean(0)
    assert (errors < 0.6 * linear).all() and errors[1] < 0.4 * family.targets.chance_loss
