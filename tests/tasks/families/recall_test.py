"""The distribution of sequences of recall."""

import functools

import jax
import numpy as np
import pytest

from gpicl_flax.references.nearest_neighbours import nearest_neighbours
from gpicl_flax.tasks.families import Recall

N, X, C, COUNT = 6, 4, 5, 5000


@functools.cache
def draw(recency_exponent=0.0):
    family = Recall(num_pairs=N, dimensions=X, num_classes=C, recency_exponent=recency_exponent)

    def both(key):
        task_key, sequence_key = jax.random.split(key)
        pairs = family.draw_task(task_key)
        return pairs, family.draw_sequence(pairs, sequence_key)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), COUNT)))


def presented_at(sequence):
    """The position [COUNT, N] at which the pair of each question was presented."""
    same = (sequence.inputs[:, N:, None] == sequence.inputs[:, None, :N]).all(axis=-1)
    assert (same.sum(axis=-1) == 1).all() and (same.sum(axis=-2) == 1).all()
    return same.argmax(axis=-1)


def test_keys_are_uniform_on_the_sphere_and_classes_are_uniform():
    pairs, _ = draw()
    np.testing.assert_allclose(np.linalg.norm(pairs.keys, axis=-1), 1, rtol=1e-5)
    flat = pairs.keys.reshape(-1, X)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(X) / X, atol=0.01)
    np.testing.assert_allclose(np.mean(flat**4), 3 / (X * (X + 2)), rtol=0.03)
    np.testing.assert_allclose(np.bincount(pairs.classes.ravel()) / pairs.classes.size, 1 / C, rtol=0.05)


def test_pairs_are_presented_once_and_then_asked_for_once():
    pairs, sequence = draw()
    at = presented_at(sequence)
    answers = np.take_along_axis(sequence.targets, at, axis=1)
    np.testing.assert_array_equal(sequence.targets[:, N:], answers)
    np.testing.assert_array_equal(sequence.counted, np.broadcast_to(np.arange(2 * N) >= N, (COUNT, 2 * N)))
    np.testing.assert_array_equal(sequence.shown, ~sequence.counted)
    for half in (slice(0, N), slice(N, 2 * N)):
        np.testing.assert_array_equal(np.sort(sequence.targets[:, half]), np.sort(pairs.classes))


def test_both_orders_are_uniform():
    pairs, sequence = draw()
    presented = (sequence.inputs[:, :N, None] == pairs.keys[:, None]).all(axis=-1)
    np.testing.assert_allclose(presented.mean(axis=0), 1 / N, atol=0.03)
    asked = presented_at(sequence)[..., None] == np.arange(N)
    np.testing.assert_allclose(asked.mean(axis=0), 1 / N, atol=0.03)


def test_with_an_exponent_what_was_presented_late_is_asked_for_early():
    at = presented_at(draw(recency_exponent=2.0)[1])
    weights = 1 / (N - np.arange(N)) ** 2.0
    probabilities = weights / weights.sum()
    np.testing.assert_allclose(np.bincount(at[:, 0], minlength=N) / COUNT, probabilities, atol=0.02)
    second = at[at[:, 0] == N - 1][:, 1]
    remaining = np.append(probabilities[:-1], 0) / probabilities[:-1].sum()
    np.testing.assert_allclose(np.bincount(second, minlength=N) / len(second), remaining, atol=0.03)


def test_exact_look_up_answers_everything():
    _, sequence = draw()
    votes = nearest_neighbours(sequence.inputs[:50], np.eye(C)[sequence.targets[:50]], 1)
    np.testing.assert_array_equal(np.argmax(votes, axis=-1)[:, N:], sequence.targets[:50, N:])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_task_is_determined_by_its_key_alone(seed):
    key = jax.random.split(jax.random.key(0), COUNT)[seed]
    pairs = Recall(num_pairs=N, dimensions=X, num_classes=C).draw_task(jax.random.split(key)[0])
    np.testing.assert_allclose(pairs.keys, draw()[0].keys[seed], rtol=1e-6)
    np.testing.assert_array_equal(pairs.classes, draw()[0].classes[seed])
