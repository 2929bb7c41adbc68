"""Averaging against numpy float64."""

import jax
import numpy as np

from gpicl_flax.references.averaging import averaging


def test_predictions_are_those_of_the_mean_of_inputs_times_targets():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 9, 5)), rng.normal(size=(2, 9, 3))
    correct = np.zeros((2, 9, 3))
    for row in range(2):
        for t in range(1, 9):
            weights = np.mean([np.outer(inputs[row, s], targets[row, s]) for s in range(t)], axis=0)
            correct[row, t] = inputs[row, t] @ weights
    predictions = jax.jit(averaging)(inputs.astype(np.float32), targets.astype(np.float32))
    np.testing.assert_allclose(predictions, correct, rtol=1e-5, atol=1e-5)
    first = jax.jit(averaging)(inputs.astype(np.float32), targets[..., 0].astype(np.float32))
    np.testing.assert_allclose(first, correct[..., 0], rtol=1e-5, atol=1e-5)
