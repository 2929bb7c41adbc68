"""Predictors for Gaussian classes against numpy float64, and against integration over the class means."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.references import by_family, gaussian_classes
from gpicl_flax.tasks.families import GaussianClasses

C, NOISE = 3, 0.6


def problem(num_tasks=1, num_features=5, length=12, batch=2):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(num_tasks, C, num_features)) / np.sqrt(num_features)
    labels = rng.integers(C, size=(batch, length))
    of_sequence = means[rng.integers(num_tasks, size=batch)]
    inputs = np.take_along_axis(of_sequence, labels[..., None], axis=1)
    inputs = inputs + NOISE * rng.normal(size=inputs.shape) / np.sqrt(num_features)
    return inputs.astype(np.float32), labels, means.astype(np.float32)


def normalise(log_joint):
    log_joint = log_joint - log_joint.max()
    return log_joint - np.log(np.exp(log_joint).sum())


def conjugate(inputs, labels):
    settings = {"num_classes": C, "noise": NOISE}
    return np.asarray(jax.jit(functools.partial(gaussian_classes.conjugate, **settings))(inputs, labels))


def pool_posterior(inputs, labels, means, block_size=8):
    settings = {"draw_tasks": lambda ids: jnp.asarray(means)[ids], "num_tasks": len(means), "block_size": block_size}
    settings["noise"] = NOISE
    return np.asarray(jax.jit(functools.partial(gaussian_classes.pool_posterior, **settings))(inputs, labels))


def test_conjugate_predictions_are_those_of_the_joint_density():
    """The density of a class's examples together is a normal one with variance everywhere and covariance within."""
    inputs, labels, _ = problem()
    X = inputs.shape[-1]

    def log_density(x):  # of [n, X]: each feature has covariance (1 + noise^2 I) / X over examples
        covariance = (1 + NOISE**2 * np.eye(len(x))) / X
        quadratic = np.einsum("nx,nm,mx->", x, np.linalg.inv(covariance), x)
        return -0.5 * (quadratic + X * np.linalg.slogdet(covariance)[1])

    correct = np.zeros((*labels.shape, C))
    for row, t in np.ndindex(labels.shape):
        x = inputs[row].astype(np.float64)
        earlier = [x[:t][labels[row, :t] == c] for c in range(C)]
        log_joint = [log_density(np.concatenate([e, x[t : t + 1]])) - log_density(e) for e in earlier]
        correct[row, t] = normalise(np.array(log_joint))
    np.testing.assert_allclose(conjugate(inputs, labels), correct, rtol=1e-4, atol=1e-4)
    with jax.enable_x64(True):
        in_double = conjugate(inputs.astype(np.float64), labels)
    np.testing.assert_allclose(in_double, correct, rtol=1e-9, atol=1e-9)


def test_in_one_dimension_conjugate_predictions_are_those_of_integration_over_class_means():
    inputs, labels, _ = problem(num_features=1)
    mean = np.linspace(-12, 12, 5001)
    prior = np.exp(-(mean**2) / 2)
    densities = np.exp(-((inputs.astype(np.float64) - mean) ** 2) / (2 * NOISE**2))  # [B, T, points]
    correct = np.zeros((*labels.shape, C))
    for row, t, c in np.ndindex(correct.shape):
        posterior = prior * np.prod(densities[row, :t][labels[row, :t] == c], axis=0)
        correct[row, t, c] = posterior @ densities[row, t] / posterior.sum()
    correct /= correct.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.exp(conjugate(inputs, labels)), correct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", [1, 5, 12, 50])
def test_pool_predictions_are_those_of_the_mixture_in_blocks_of_any_size(block_size):
    inputs, labels, means = problem(num_tasks=12)
    correct = np.zeros((*labels.shape, C))
    for row, t in np.ndindex(labels.shape):
        x = inputs[row].astype(np.float64)
        distances = ((x[:, None, None] - means.astype(np.float64)) ** 2).sum(-1)  # [T, K, C]
        log_densities = -distances * x.shape[1] / (2 * NOISE**2)
        seen = sum((log_densities[s, :, labels[row, s]] for s in range(t)), np.zeros(len(means)))
        joint = seen[:, None] + log_densities[t]
        correct[row, t] = normalise(joint.max() + np.log(np.exp(joint - joint.max()).sum(0)))
    np.testing.assert_allclose(pool_posterior(inputs, labels, means, block_size), correct, rtol=1e-4, atol=1e-4)
    with jax.enable_x64(True):
        in_double = pool_posterior(inputs.astype(np.float64), labels, means, block_size)
    np.testing.assert_allclose(in_double, correct, rtol=1e-9, atol=1e-9)


def test_many_tasks_are_as_good_as_all():
    inputs, labels, _ = problem(num_features=1, length=6, batch=10)
    means = np.random.default_rng(1).normal(size=(2**13, C, 1)).astype(np.float32)
    few, many = (np.exp(pool_posterior(inputs, labels, means[:K], block_size=2**10)) for K in (4, 2**13))
    bayes = np.exp(conjugate(inputs, labels))
    assert np.abs(few - bayes).max() > 0.2
    assert np.abs(many - bayes).max() < 0.05


def test_the_nearest_class_mean_is_that_of_numpy():
    inputs, labels, _ = problem(length=20)
    shares = np.asarray(jax.jit(functools.partial(gaussian_classes.nearest_class_mean, num_classes=C))(inputs, labels))
    np.testing.assert_array_equal(shares[:, 0], 0)
    np.testing.assert_array_equal(shares[:, 1], np.eye(C)[labels[:, 0]])
    for row, t in np.ndindex(labels.shape):
        x, y = inputs[row].astype(np.float64), labels[row]
        distances = {c: np.linalg.norm(x[t] - x[:t][y[:t] == c].mean(axis=0)) for c in set(y[:t])}
        if distances:
            np.testing.assert_array_equal(shares[row, t], np.eye(C)[min(distances, key=distances.__getitem__)])


def test_equally_near_class_means_share():
    inputs, labels = np.array([[[1.0], [-1.0], [5.0], [0.0]]], np.float32), np.array([[0, 1, 2, 0]])
    shares = gaussian_classes.nearest_class_mean(inputs, labels, num_classes=4)
    np.testing.assert_array_equal(shares[0, 3], [0.5, 0.5, 0, 0])


def test_hidden_examples_are_not_learned_from():
    inputs, labels, means = problem(num_tasks=12)
    labels[:, 3:6] = -1
    remaining = np.delete(np.arange(labels.shape[1]), [3, 4, 5])
    for predict in (conjugate, functools.partial(pool_posterior, means=means)):
        hidden, without = predict(inputs, labels), predict(inputs[:, remaining], labels[:, remaining])
        np.testing.assert_allclose(hidden[:, remaining], without, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "axis", [{"zipf_exponent": 1.0}, {"burstiness": 0.5}, {"label_noise": 0.1}, {"fixed_labels": 0.5}]
)
@pytest.mark.parametrize("num_tasks", [None, 4])
def test_nothing_is_called_bayes_where_an_axis_makes_it_inexact(axis, num_tasks):
    known = [*by_family.references(GaussianClasses(num_tasks=num_tasks))]
    found = [*by_family.references(GaussianClasses(num_tasks=num_tasks, **axis))]
    assert "Bayes" in known[0] and not any("Bayes" in name for name in found)
    assert found == (["conjugate"] if num_tasks is None else ["mixture over K tasks", "conjugate"]) + known[-1:]


def test_the_mixture_knows_the_fixed_classes():
    family = GaussianClasses(num_classes=4, dimensions=32, noise=0.05, sequence_length=9, num_tasks=1, fixed_labels=0.5)
    make = jax.jit(functools.partial(family.make_sequences, None, max_bytes=0, num_shards=1))
    batch = {"task_ids": np.zeros(20, np.uint32), "sequence_seeds": np.arange(20, dtype=np.uint32)}
    sequences = make(np.uint32(3), batch, (), ())
    mixture = by_family.references(family)["mixture over K tasks"]
    assert (mixture.predict(np.uint32(3), sequences).argmax(axis=-1) == sequences.targets).all()
