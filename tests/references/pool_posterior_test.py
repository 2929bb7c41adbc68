"""The posterior mean over a pool of linear regressions against numpy float64, and against ridge for a large pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.references.pool_posterior import pool_posterior
from gpicl_flax.references.ridge import ridge

NOISE = 0.5


def expected(inputs, targets, tasks, noise):
    inputs, targets, tasks = (np.asarray(x, np.float64) for x in (inputs, targets, tasks))
    predictions = np.zeros(targets.shape)
    for row, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        for t in range(len(x)):
            log_posterior = -((y[:t, None] - x[:t] @ tasks.T) ** 2).sum(0) / (2 * noise**2)
            posterior = np.exp(log_posterior - log_posterior.max())
            predictions[row, t] = x[t] @ (posterior @ tasks) / posterior.sum()
    return predictions


def problem(num_tasks, num_features=4, length=9, batch=3):
    rng = np.random.default_rng(0)
    tasks, inputs = rng.normal(size=(num_tasks, num_features)), rng.normal(size=(batch, length, num_features))
    weights = tasks[rng.integers(num_tasks, size=batch)]
    targets = np.einsum("btx,bx->bt", inputs, weights) + NOISE * rng.normal(size=(batch, length))
    return [x.astype(np.float32) for x in (inputs, targets, tasks)]


def predict(inputs, targets, tasks, noise=NOISE, block_size=8):
    settings = {"draw_tasks": lambda ids: jnp.asarray(tasks)[ids], "num_tasks": len(tasks), "block_size": block_size}
    return np.asarray(jax.jit(functools.partial(pool_posterior, **settings))(inputs, targets, noise=noise))


@pytest.mark.parametrize("block_size", [1, 5, 32, 100])
def test_predictions_are_those_of_the_posterior_in_blocks_of_any_size(block_size):
    arrays = problem(num_tasks=32)
    correct = expected(*arrays, NOISE)
    np.testing.assert_allclose(predict(*arrays, block_size=block_size), correct, rtol=1e-4, atol=1e-5)
    with jax.enable_x64(True):
        in_double = predict(*(x.astype(np.float64) for x in arrays), block_size=block_size)
    np.testing.assert_allclose(in_double, correct, rtol=1e-10, atol=1e-10)


def test_with_little_noise_one_example_finds_the_task():
    inputs, _, tasks = problem(num_tasks=32)
    targets = inputs @ tasks[7]
    predictions = predict(inputs, targets, tasks, noise=1e-4)
    np.testing.assert_allclose(predictions[:, 0], inputs[:, 0] @ tasks.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predictions[:, 1:], targets[:, 1:], rtol=1e-5)


def test_many_tasks_are_as_good_as_all():
    inputs, targets, _ = problem(num_tasks=1, num_features=2, batch=20)
    bayes = np.asarray(ridge(inputs, targets, NOISE**2))

    def draw_tasks(ids):
        return jax.vmap(lambda task_id: jax.random.normal(jax.random.fold_in(jax.random.key(0), task_id), (2,)))(ids)

    def distance(num_tasks):
        arguments = {"draw_tasks": draw_tasks, "num_tasks": num_tasks, "noise": NOISE}
        return np.mean((jax.jit(functools.partial(pool_posterior, **arguments))(inputs, targets) - bayes) ** 2)

    assert distance(2**4) > 0.02
    assert distance(2**14) < 2e-3


def test_a_pool_of_a_million_tasks_takes_less_than_a_gigabyte():
    def draw_tasks(ids):
        return jax.vmap(lambda task_id: jax.random.normal(jax.random.fold_in(jax.random.key(0), task_id), (8,)))(ids)

    def predict(inputs, targets):
        return pool_posterior(inputs, targets, draw_tasks, num_tasks=2**20, noise=NOISE)

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((256, 16, 8), (256, 16)))
    memory = jax.jit(predict).lower(*shapes).compile().memory_analysis()
    assert 0 < memory.temp_size_in_bytes < 2**30
