"""What members differ in: each property that their mean relies on."""

import numpy as np
import pytest

from gpicl_flax.learners import ensemble
from gpicl_flax.learners.standardizer import Standardizer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("n", "num_estimators", "size"), [(30, 4, 10), (30, 5, 10), (37, 9, 10), (100, 3, 99), (7, 3, 7)]
)
def test_members_share_the_examples_evenly(rng, n, num_estimators, size):
    rows = ensemble.contexts(rng, rng.integers(3, size=n), num_estimators, size)
    assert rows.shape == (num_estimators, size)
    assert all(len(set(own)) == size for own in rows)
    counts = np.bincount(rows.reshape(-1), minlength=n)
    assert counts.max() - counts.min() <= 1
    assert (counts > 0).all() == (num_estimators * size >= n)


def test_contexts_are_stratified(rng):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rows = ensemble.contexts(rng, labels, num_estimators=5, size=20)
    for own in rows:
        assert np.abs(np.bincount(labels[own], minlength=3) - [12, 6, 2]).max() <= 1


def test_members_read_in_different_random_orders(rng):
    rows = ensemble.contexts(rng, np.zeros(50, int), num_estimators=4, size=50)
    assert len({tuple(own) for own in rows}) == 4
    assert all(abs(np.corrcoef(own, np.arange(50))[0, 1]) < 0.5 for own in rows)


def test_projected_features_have_the_mean_square_of_training_inputs(rng):
    features = 100 + rng.normal(size=(2000, 30)) * rng.uniform(0.01, 1000, 30)
    inputs = Standardizer.fit(features)(features).astype(np.float32) @ ensemble.projections(rng, 50, 30, 64)
    assert inputs.shape == (50, 2000, 64)
    assert np.mean(inputs**2) == pytest.approx(1, abs=0.02)


def test_labels_are_permuted_independently(rng):
    labels = ensemble.label_permutations(rng, 200, 5)
    assert (np.sort(labels, axis=1) == np.arange(5)).all()
    share = [(labels[:, column] == label).mean() for column in range(5) for label in range(5)]
    np.testing.assert_allclose(share, 0.2, atol=0.1)
