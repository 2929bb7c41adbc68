"""Least squares against numpy's at every position, also where the examples do not determine the weights."""

import jax
import numpy as np
import pytest

from gpicl_flax.references.least_squares import least_squares
from gpicl_flax.references.ridge import ridge


def expected(inputs, targets):
    inputs, targets = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    predictions = np.zeros(targets.shape)
    for row, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        for t in range(1, len(x)):
            predictions[row, t] = x[t] @ np.linalg.lstsq(x[:t], y[:t], rcond=1e-9)[0]
    return predictions


def normal(length, num_features):
    return np.random.default_rng(0).normal(size=(2, length, num_features))


INPUTS = {
    "more examples than features": lambda: normal(30, 6),
    "more features than examples": lambda: normal(9, 25),
    "repeated examples": lambda: normal(10, 8)[:, [0, 0, 1, 2, 1, 0, 3, 4, 5, 3, 6, 7, 8, 9, 9, 2]],
    "features that are zero": lambda: normal(15, 8) * (np.arange(8) < 5),
    "features that depend on others": lambda: normal(15, 3) @ np.random.default_rng(1).normal(size=(3, 8)),
    "an input that is zero": lambda: normal(12, 5) * (np.arange(12) != 3)[:, None],
}


@pytest.mark.parametrize("name", INPUTS)
def test_predictions_are_those_of_numpy(name):
    inputs = INPUTS[name]()
    targets = np.random.default_rng(2).normal(size=inputs.shape[:2])
    correct = expected(inputs, targets)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(least_squares)(inputs, targets), correct, rtol=1e-8, atol=1e-8)
    single = jax.jit(least_squares)(inputs.astype(np.float32), targets.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, correct, rtol=1e-3, atol=1e-3)


def test_a_linear_function_is_known_after_as_many_examples_as_features():
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(20, 41, 20)).astype(np.float32), rng.normal(size=(20, 20))
    targets = np.einsum("btx,bx->bt", inputs, weights)
    errors = np.abs(jax.jit(least_squares)(inputs, targets.astype(np.float32)) - targets)
    assert np.median(errors[:, 19]) > 0.05
    assert np.median(errors[:, 20]) < 1e-4 and errors[:, 22:].max() < 1e-3


def test_it_is_the_limit_of_ridge():
    inputs, targets = normal(15, 6), np.random.default_rng(1).normal(size=(2, 15, 3))
    with jax.enable_x64(True):
        limit = jax.jit(ridge)(inputs, targets, 1e-12)
        np.testing.assert_allclose(jax.jit(least_squares)(inputs, targets), limit, rtol=1e-4, atol=1e-4)
