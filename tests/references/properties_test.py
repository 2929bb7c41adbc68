"""Properties that all references that are functions of sequences have, whatever they predict."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.references import gaussian_classes
from gpicl_flax.references.averaging import averaging
from gpicl_flax.references.least_squares import least_squares
from gpicl_flax.references.nearest_neighbours import nearest_neighbours
from gpicl_flax.references.pool_posterior import pool_posterior
from gpicl_flax.references.ridge import ridge

B, T, X, C, K, NOISE = 3, 9, 5, 4, 10, 0.5
NUMBERS = np.array([-0.7, 0.4, 1.9, 1.1])  # the targets that stand for labels where numbers are predicted
WEIGHTS = np.random.default_rng(1).normal(size=(K, X))
CLASS_MEANS = np.random.default_rng(2).normal(size=(K, C, X)) / np.sqrt(X)


def one_hot(predict):
    return lambda inputs, labels: predict(inputs, jax.nn.one_hot(labels, C, dtype=inputs.dtype))


def numbers(predict):
    return lambda inputs, labels: predict(inputs, jnp.asarray(NUMBERS, inputs.dtype)[labels])


def from_pool(predict, tasks):
    return functools.partial(
        predict, draw_tasks=lambda ids: jnp.asarray(tasks)[ids], num_tasks=K, noise=NOISE, block_size=4
    )


# (inputs [B, T, X], labels [B, T]) -> predictions [B, T] or [B, T, C]
CLASSES = {
    "ridge scores": one_hot(functools.partial(ridge, penalty=NOISE**2)),
    "nearest neighbour": one_hot(functools.partial(nearest_neighbours, k=1)),
    "conjugate": functools.partial(gaussian_classes.conjugate, num_classes=C, noise=NOISE),
    "nearest class mean": functools.partial(gaussian_classes.nearest_class_mean, num_classes=C),
    "pool of classes": from_pool(gaussian_classes.pool_posterior, CLASS_MEANS),
}
REFERENCES = CLASSES | {
    "ridge": numbers(functools.partial(ridge, penalty=NOISE**2)),
    "least squares": numbers(least_squares),
    "averaging": numbers(averaging),
    "3 nearest neighbours": numbers(functools.partial(nearest_neighbours, k=3)),
    "pool of regressions": numbers(from_pool(pool_posterior, WEIGHTS)),
}
POOLS = {"pool of classes", "pool of regressions"}

each_reference = pytest.mark.parametrize("name", REFERENCES)


@functools.cache
def compiled(name):
    return jax.jit(REFERENCES[name])


def predict(name, inputs, labels):
    return np.asarray(compiled(name)(inputs, labels))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T))


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=2e-4, atol=2e-4)


@each_reference
def test_the_order_of_earlier_examples_does_not_matter(name, data):
    inputs, labels = data
    before = predict(name, inputs, labels)
    order = np.append(np.random.default_rng(3).permutation(T - 1), T - 1)
    assert_close(predict(name, inputs[:, order], labels[:, order])[:, -1], before[:, -1])


@each_reference
@pytest.mark.parametrize("t", [0, 4, T - 1])
def test_a_prediction_uses_its_input_and_earlier_examples_alone(name, data, t):
    inputs, labels = data
    before = predict(name, inputs, labels)
    later_inputs, later_labels = inputs.copy(), labels.copy()
    later_inputs[:, t + 1 :] *= -3
    later_labels[:, t:] = (labels[:, t:] + 1) % C
    after = predict(name, later_inputs, later_labels)
    np.testing.assert_allclose(after[:, : t + 1], before[:, : t + 1], rtol=1e-6, atol=1e-6)
    if t < T - 1:
        assert np.abs(after[:, t + 1 :] - before[:, t + 1 :]).max() > 0.01
    changed_query = inputs.copy()
    changed_query[:, t] = -inputs[:, t]
    if t > 0:
        assert np.abs(predict(name, changed_query, labels)[:, t] - before[:, t]).max() > 0.01


@each_reference
def test_predictions_are_finite_with_no_example_and_with_repeated_ones(name, data):
    inputs, labels = data
    same = np.broadcast_to(inputs[:, :1], inputs.shape)
    for x, y in ((same, labels), (np.zeros_like(inputs), labels), (same, np.zeros_like(labels))):
        assert np.isfinite(predict(name, x, y)).all()


@each_reference
def test_float32_agrees_with_float64(name, data):
    inputs, labels = data
    single = predict(name, inputs, labels)
    with jax.enable_x64(True):
        double = predict(name, inputs.astype(np.float64), labels)
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert_close(single, double)


@each_reference
def test_it_can_be_vmapped(name, data):
    inputs, labels = data
    expected = predict(name, inputs, labels)
    single = jax.jit(jax.vmap(lambda x, y: REFERENCES[name](x[None], y[None])[0]))(inputs, labels)
    assert_close(single, expected)


@pytest.mark.parametrize("name", sorted(REFERENCES.keys() - POOLS))
def test_predictions_do_not_change_when_all_inputs_are_rotated(name, data):
    inputs, labels = data
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(X, X)))[0].astype(np.float32)
    assert_close(predict(name, inputs @ rotation, labels), predict(name, inputs, labels))


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - POOLS))
def test_predictions_permute_with_the_labels(name, data):
    inputs, labels = data
    permutation = np.array([2, 0, 3, 1])
    permuted = predict(name, inputs, permutation[labels])
    assert_close(permuted[..., permutation], predict(name, inputs, labels))
