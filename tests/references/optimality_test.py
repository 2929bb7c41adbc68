"""References on sequences of the families that they belong to: the optimal ones are optimal there, and calibrated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.references import gaussian_classes as predictors
from gpicl_flax.references.least_squares import least_squares
from gpicl_flax.references.pool_posterior import pool_posterior
from gpicl_flax.references.ridge import ridge
from gpicl_flax.references.scikit_learn import REGRESSORS, numbers
from gpicl_flax.tasks.families import FunctionClasses, GaussianClasses

B, T, X, C, K, NOISE = 600, 12, 6, 4, 8, 0.8
CLASSES = GaussianClasses(num_classes=C, dimensions=X, noise=NOISE, sequence_length=T)


def draw_class_means(ids):
    return jax.vmap(lambda task_id: CLASSES.draw_task(jax.random.fold_in(jax.random.key(0), task_id)))(ids)


@functools.cache
def class_sequences(num_tasks):
    """Sequences [B, T, X] and [B, T] of the first tasks."""
    tasks = draw_class_means(np.arange(B, dtype=np.uint32) % num_tasks)
    keys = jax.random.split(jax.random.key(1), B)
    return jax.vmap(CLASSES.draw_sequence)(tasks, keys)[:2]


def class_log_probabilities(num_tasks, scale=1.0):
    """Predictions [B, T, C] of the optimum for unbounded tasks (None) or K tasks, with the noise off by a factor."""
    settings = {"noise": scale * NOISE}
    if num_tasks is None:
        predict = functools.partial(predictors.conjugate, num_classes=C, **settings)
    else:
        predict = functools.partial(
            predictors.pool_posterior, draw_tasks=draw_class_means, num_tasks=num_tasks, **settings
        )
    return jax.jit(predict)


def at_labels(values, labels):
    return np.take_along_axis(np.asarray(values), np.asarray(labels)[..., None], axis=-1)[..., 0]


# The optimum, and the number of tasks on which it is one.
OPTIMA = pytest.mark.parametrize(("optimum", "num_tasks"), [(None, B), (K, K)])


@OPTIMA
def test_probabilities_of_gaussian_classes_are_calibrated(optimum, num_tasks):
    inputs, labels = class_sequences(num_tasks)
    probabilities = np.exp(class_log_probabilities(optimum)(inputs, labels))
    # If predictions are the posterior, the probability of the true class is on average that of a class drawn from them.
    surplus = at_labels(probabilities, labels) - np.square(probabilities).sum(axis=-1)
    assert np.abs(surplus.mean()) < 4 * surplus.mean(axis=1).std() / np.sqrt(B)
    assert at_labels(probabilities, labels)[:, -1].mean() > 1.5 / C


@OPTIMA
def test_no_other_noise_predicts_gaussian_classes_better(optimum, num_tasks):
    inputs, labels = class_sequences(num_tasks)
    losses = {
        scale: -at_labels(class_log_probabilities(optimum, scale)(inputs, labels), labels).mean()
        for scale in (0.6, 1.0, 1.6)
    }
    assert min(losses, key=losses.__getitem__) == 1.0, losses


def test_each_optimum_of_gaussian_classes_is_better_on_its_own_tasks():
    loss = {}
    for num_tasks in (B, K):
        inputs, labels = class_sequences(num_tasks)
        for optimum in (None, K):
            log_probabilities = class_log_probabilities(optimum)(inputs, labels)
            loss[num_tasks, optimum] = -at_labels(log_probabilities, labels)[:, T // 2 :].mean()
    assert loss[K, K] < loss[K, None] - 0.1 and loss[B, None] < loss[B, K] - 0.1, loss


def test_each_optimum_of_linear_regression_is_better_on_its_own_tasks():
    rng = np.random.default_rng(0)
    pool, inputs = rng.normal(size=(K, X)), rng.normal(size=(B, T, X)).astype(np.float32)
    predict_from_pool = functools.partial(
        pool_posterior, draw_tasks=lambda ids: jnp.asarray(pool)[ids], num_tasks=K, noise=NOISE
    )
    risk = {}
    for name, weights in (("K", pool[rng.integers(K, size=B)]), ("unbounded", rng.normal(size=(B, X)))):
        clean = np.einsum("btx,bx->bt", inputs, weights)
        targets = (clean + NOISE * rng.normal(size=(B, T))).astype(np.float32)
        for reference, predict in (("pool", predict_from_pool), ("ridge", lambda x, y: ridge(x, y, NOISE**2))):
            risk[name, reference] = np.mean((jax.jit(predict)(inputs, targets) - clean)[:, T // 2 :] ** 2)
    assert risk["K", "pool"] < risk["K", "ridge"] - 0.1, risk
    assert risk["unbounded", "ridge"] < risk["unbounded", "pool"] - 0.1, risk


def test_lasso_needs_fewer_examples_of_sparse_functions_than_least_squares():
    family = FunctionClasses(function_class="sparse_linear", sequence_length=16)

    def sequence(key):
        task_key, sequence_key = jax.random.split(key)
        return family.draw_sequence(family.draw_task(task_key), sequence_key)[:2]

    inputs, targets = jax.vmap(sequence)(jax.random.split(jax.random.key(0), 50))
    lasso = numbers(REGRESSORS["lasso"], np.asarray(inputs), np.asarray(targets), [15])[:, 0]
    errors = [
        np.mean((prediction - targets[:, 15]) ** 2) for prediction in (lasso, least_squares(inputs, targets)[:, 15])
    ]
    assert 4 * errors[0] < errors[1], errors
