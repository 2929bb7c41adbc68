"""Ridge regression against numpy float64 at every position, and against integration over the weights."""

import jax
import numpy as np
import pytest

from gpicl_flax.references.ridge import ridge


def expected(inputs, targets, penalty):
    """Solves the normal equations in the dimensions of the inputs, once a position."""
    inputs, targets = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    predictions = np.zeros(targets.shape)
    for row, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        for t in range(len(x)):
            precision = x[:t].T @ x[:t] + penalty * np.eye(x.shape[1])
            predictions[row, t] = x[t] @ np.linalg.solve(precision, x[:t].T @ y[:t])
    return predictions


@pytest.mark.parametrize(("length", "num_features"), [(41, 20), (12, 30)])
@pytest.mark.parametrize("penalty", [1e-3, 0.25, 10.0])
def test_predictions_are_those_of_the_normal_equations(length, num_features, penalty):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(3, length, num_features)), rng.normal(size=(3, length))
    correct = expected(inputs, targets, penalty)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(ridge)(inputs, targets, penalty), correct, rtol=1e-9, atol=1e-10)
    single = jax.jit(ridge)(inputs.astype(np.float32), targets.astype(np.float32), penalty)
    assert single.dtype == np.float32
    # With as many examples as features, predictions go up to 20, and all earlier targets count.
    np.testing.assert_allclose(single, correct, rtol=1e-3, atol=1e-4)


def test_one_hot_labels_give_a_score_for_each_class():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 9, 4)).astype(np.float32), np.eye(3)[rng.integers(3, size=(2, 9))]
    scores = jax.jit(ridge)(inputs, targets, 0.5)
    assert scores.shape == (2, 9, 3)
    for label in range(3):
        np.testing.assert_allclose(scores[..., label], expected(inputs, targets[..., label], 0.5), rtol=1e-4, atol=1e-5)


def test_in_one_dimension_it_is_the_posterior_mean_by_integration():
    rng = np.random.default_rng(0)
    noise = 0.5
    inputs = rng.normal(size=(2, 10, 1))
    targets = 1.3 * inputs[..., 0] + noise * rng.normal(size=(2, 10))
    weights = np.linspace(-12, 12, 200_001)
    correct = np.zeros((2, 10))
    for row in range(2):
        for t in range(10):
            errors = targets[row, :t, None] - inputs[row, :t] * weights
            log_posterior = -(weights**2) / 2 - (errors**2).sum(0) / (2 * noise**2)
            posterior = np.exp(log_posterior - log_posterior.max())
            correct[row, t] = inputs[row, t, 0] * (posterior @ weights) / posterior.sum()
    predictions = jax.jit(ridge)(inputs.astype(np.float32), targets.astype(np.float32), noise**2)
    np.testing.assert_allclose(predictions, correct, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_float32_is_enough_for_strongly_correlated_images():
    rng = np.random.default_rng(0)
    # The Gram matrix has eigenvalues from 0 to 1.4e7: in float32, it has no Cholesky decomposition.
    images = 30 * (rng.normal(size=(1, 100, 40)) * np.geomspace(1, 1e-4, 40)) @ rng.normal(size=(40, 196))
    inputs, targets = images.astype(np.float32), np.eye(10)[rng.integers(10, size=(1, 100))]
    np.testing.assert_allclose(jax.jit(ridge)(inputs, targets, 1e-2), expected(inputs, targets, 1e-2), atol=1e-3)
