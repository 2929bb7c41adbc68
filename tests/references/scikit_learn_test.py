"""Estimators of scikit-learn at given positions."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsClassifier

from gpicl_flax.errors import UsageError
from gpicl_flax.references.scikit_learn import CLASSIFIERS, REGRESSORS, class_probabilities, numbers

# As the defaults, with fewer trees.
QUICK = CLASSIFIERS | {"random_forest": RandomForestClassifier(10, random_state=0)}
C = 4


@pytest.fixture
def blobs():
    """Two sequences of three far apart classes, of four that are possible."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.zeros((2, 2), int), rng.integers(3, size=(2, 18))], axis=1)
    means = 5 * rng.normal(size=(3, 6))
    return means[labels] + rng.normal(size=(2, 20, 6)), labels


@pytest.mark.parametrize("name", QUICK)
def test_classifiers_learn_from_earlier_examples_alone(blobs, name):
    inputs, labels = blobs
    probabilities = class_probabilities(QUICK[name], inputs, labels, [0, 1, 2, 10, 19], C)
    assert probabilities.shape == (2, 5, C)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    np.testing.assert_array_equal(probabilities[:, 0], 1 / C)
    np.testing.assert_array_equal(probabilities[:, 1:3], np.broadcast_to(np.eye(C)[0], (2, 2, C)))
    np.testing.assert_array_equal(probabilities[:, 4].argmax(-1), labels[:, 19])

    later = labels.copy()
    later[:, 10:] = (labels[:, 10:] + 1) % 3
    changed = class_probabilities(QUICK[name], inputs, later, [10, 19], C)
    np.testing.assert_array_equal(changed[:, 0], probabilities[:, 3])
    assert (changed[:, 1] != probabilities[:, 4]).any()


def test_probabilities_stand_at_the_classes_that_were_seen():
    inputs, labels = np.array([[[0.0], [1.0], [2.0], [3.0], [2.9]]]), np.array([[1, 1, 3, 3, 0]])
    probabilities = class_probabilities(KNeighborsClassifier(3), inputs, labels, [2, 4], C)
    np.testing.assert_allclose(probabilities[0], [[0, 1, 0, 0], [0, 1 / 3, 0, 2 / 3]])


def test_while_there_are_too_few_neighbours_all_count():
    inputs, labels = np.array([[[0.0], [1.0], [2.0], [3.0]]]), np.array([[1, 1, 3, 0]])
    probabilities = class_probabilities(CLASSIFIERS["nearest_neighbours"], inputs, labels, [3], C)
    np.testing.assert_allclose(probabilities[0], [[0, 2 / 3, 0, 1 / 3]])


def test_lasso_predicts_a_sparse_function():
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(3, 21, 20)), np.zeros((3, 20))
    weights[:, :3] = 2 + rng.uniform(size=(3, 3))
    targets = np.einsum("btx,bx->bt", inputs, weights)
    predictions = numbers(REGRESSORS["lasso"], inputs, targets, [0, 15, 20])
    np.testing.assert_array_equal(predictions[:, 0], 0)
    np.testing.assert_allclose(predictions[:, 2], targets[:, 20], atol=0.3)  # where least squares are not yet exact
    again = Lasso(alpha=0.01, fit_intercept=False, max_iter=100_000).fit(inputs[1, :15], targets[1, :15])
    np.testing.assert_allclose(predictions[1, 1], again.predict(inputs[1, 15:16])[0], rtol=1e-6)


def test_boosted_trees_predict_a_step():
    inputs = np.random.default_rng(0).normal(size=(2, 40, 3))
    targets = np.where(inputs[..., 1] > 0, 2.0, -1.0)
    trees = REGRESSORS["boosted_trees"]
    np.testing.assert_allclose(numbers(trees, inputs, targets, [39])[:, 0], targets[:, 39], atol=0.01)
    assert numbers(trees, inputs, targets, [1]).tolist() == targets[:, :1].tolist()
    np.testing.assert_array_equal(numbers(trees, inputs, targets, [30]), numbers(trees, inputs, targets, [30]))


@pytest.mark.parametrize("position", [-1, 20])
def test_a_position_outside_of_the_sequence_is_refused(blobs, position):
    inputs, labels = blobs
    with pytest.raises(UsageError, match=rf"0\.\.19.*{position}"):
        numbers(REGRESSORS["lasso"], inputs, labels, [position])


def test_hidden_labels_are_not_learned_from(blobs):
    inputs, labels = blobs
    hidden = labels.copy()
    hidden[:, 5:12] = -1
    kept = [*range(5), *range(12, 20)]
    found = class_probabilities(CLASSIFIERS["svm"], inputs, hidden, [3, 19], C)
    np.testing.assert_array_equal(
        found, class_probabilities(CLASSIFIERS["svm"], inputs[:, kept], labels[:, kept], [3, 12], C)
    )
    all_hidden = class_probabilities(CLASSIFIERS["svm"], inputs, np.full_like(labels, -1), [19], C)
    np.testing.assert_array_equal(all_hidden, 1 / C)


def test_standardised_features_have_no_scale(blobs):
    inputs, labels = blobs
    scales = np.geomspace(1e-3, 1e3, 6)
    settings = {"positions": [10, 19], "num_classes": C}
    plain = class_probabilities(CLASSIFIERS["logistic_regression"], inputs, labels, **settings, standardize=True)
    scaled = class_probabilities(
        CLASSIFIERS["logistic_regression"], scales * inputs, labels, **settings, standardize=True
    )
    np.testing.assert_allclose(scaled, plain, atol=1e-4)
