"""Nearest neighbours against scikit-learn's, and where several are equally near."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from gpicl_flax.references.nearest_neighbours import nearest_neighbours


def predict(inputs, targets, k):
    return np.asarray(jax.jit(nearest_neighbours, static_argnums=2)(inputs.astype(np.float32), targets, k))


@pytest.mark.parametrize("k", [1, 3, 50])
def test_predictions_are_those_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    # Far from zero, where products of inputs in float32 would not tell neighbours apart.
    inputs, targets = rng.normal(size=(2, 15, 4)) + 1000, rng.normal(size=(2, 15))
    inputs = inputs.astype(np.float32).astype(np.float64)
    correct = np.zeros((2, 15))
    for row in range(2):
        for t in range(1, 15):
            model = KNeighborsRegressor(min(k, t)).fit(inputs[row, :t], targets[row, :t])
            correct[row, t] = model.predict(inputs[row, t : t + 1])[0]
    np.testing.assert_allclose(predict(inputs, targets, k), correct, rtol=1e-5, atol=1e-6)


def test_keys_that_were_seen_are_looked_up():
    rng = np.random.default_rng(0)
    keys, classes = rng.normal(size=(20, 8)), rng.integers(6, size=20)
    order = rng.permutation(20)
    labels = np.eye(6)[np.concatenate([classes, classes[order]])]
    votes = predict(np.concatenate([keys, keys[order]])[None], labels[None], 1)
    np.testing.assert_array_equal(votes[0, 20:], labels[20:])


def test_all_that_are_as_near_as_the_last_neighbour_count():
    inputs = np.array([[[0.0], [2.0], [2.0], [-3.0], [1.0]]])
    targets = np.array([[10.0, 1.0, 2.0, 50.0, 0.0]])
    assert predict(inputs, targets, 1)[0, 4] == pytest.approx(13 / 3)
    assert predict(inputs, targets, 4)[0, 4] == pytest.approx(63 / 4)
