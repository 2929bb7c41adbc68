"""The distribution of Gaussian classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.tasks.families import GaussianClasses

C, X, T, NOISE = 5, 8, 50, 0.7

FAMILY = GaussianClasses(num_classes=C, dimensions=X, noise=NOISE, sequence_length=T)


@pytest.fixture(scope="module")
def drawn():
    keys = jax.random.split(jax.random.key(0), (2, 2000))
    means = jax.jit(jax.vmap(FAMILY.draw_task))(keys[0])
    inputs, labels, *_ = jax.jit(jax.vmap(FAMILY.draw_sequence))(means, keys[1])
    return np.asarray(means), np.asarray(inputs), np.asarray(labels)


def test_class_means_are_normal_with_length_one(drawn):
    means, _, _ = drawn
    flat = means.reshape(len(means), -1) * np.sqrt(X)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=5 / np.sqrt(len(flat)))
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(C * X), atol=0.15)
    np.testing.assert_allclose(np.mean(flat**4), 3, rtol=0.05)


def test_examples_scatter_around_the_mean_of_their_class(drawn):
    means, inputs, labels = drawn
    assert inputs.dtype == np.float32 and labels.dtype == np.int32
    deviations = inputs - np.take_along_axis(means, labels[..., None], axis=1)
    flat = deviations.reshape(-1, X) * np.sqrt(X) / NOISE
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(X), atol=0.03)
    assert np.abs(np.mean(deviations[:, 0] * deviations[:, 1])) < 0.01


def test_labels_are_uniform_and_independent(drawn):
    labels = drawn[2]
    np.testing.assert_allclose(np.bincount(labels.ravel(), minlength=C) / labels.size, 1 / C, rtol=0.03)
    pairs = np.bincount(C * labels[:, :-1].ravel() + labels[:, 1:].ravel(), minlength=C**2)
    np.testing.assert_allclose(pairs / pairs.sum(), 1 / C**2, rtol=0.1)


def test_a_task_is_determined_by_its_key_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(jax.vmap(FAMILY.draw_task)(keys)[1], FAMILY.draw_task(keys[1]))
    assert (jnp.abs(FAMILY.draw_task(keys[0]) - FAMILY.draw_task(keys[1])) > 1e-3).any()
