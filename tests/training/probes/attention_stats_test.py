"""What queries and keys compare, against sums in numpy that are written from the definitions."""

import numpy as np
import pytest
import scipy.special

from gpicl_flax.training.probes.attention_stats import attention_mass, matching_score

B, T, HEADS, K, X, C = 3, 7, 2, 4, 5, 3


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    query, key = (rng.normal(size=(B, T, HEADS, K)).astype(np.float32) for _ in range(2))
    inputs = rng.normal(size=(B, T, X)).astype(np.float32)
    return query, key, inputs, rng.integers(C, size=(B, T))


def test_the_matching_score_is_the_pooled_correlation_over_the_examples_so_far(data):
    query, key, inputs, _ = data
    query[..., :3] += inputs[:, :, None, :3]
    key[:, 1:, :, :3] += inputs[:, :-1, None, :3]
    for head, score in enumerate(matching_score(query, key, inputs)):
        logits, products = [], []
        for b in range(B):
            for t in range(1, T):
                row = np.array([query[b, t, head] @ key[b, i, head] for i in range(1, t + 1)], np.float64)
                like = np.array([inputs[b, t] @ inputs[b, i - 1] for i in range(1, t + 1)], np.float64)
                logits.append(row - row.mean())
                products.append(like - like.mean())
        logits, products = np.concatenate(logits), np.concatenate(products)
        expected = logits @ products / np.sqrt((logits**2).sum() * (products**2).sum())
        assert 0.1 < expected < 1
        assert score == pytest.approx(expected, rel=1e-4)


def test_perfect_matching_scores_one_and_its_opposite_none(data):
    inputs = data[2]
    previous = np.pad(inputs, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    # Per query, attention sees no constant: a key dimension that is the same for all tokens changes nothing.
    query = np.stack([inputs, -inputs], axis=2)
    key = np.stack([3 * previous + 1, previous], axis=2)
    np.testing.assert_allclose(matching_score(query, key, inputs), [1, 0], atol=1e-5)
    np.testing.assert_array_equal(matching_score(0 * query, key, inputs), [0, 0])


def test_attention_masses_are_those_of_the_softmax(data):
    query, key, _, labels = data
    logits = np.einsum("btnk,bsnk->nbts", query, key, dtype=np.float64) / np.sqrt(K)
    logits[..., np.triu(np.ones((T, T), bool), k=1)] = -np.inf
    weights = scipy.special.softmax(logits, axis=-1)
    same, previous, uniform = np.zeros(HEADS), np.zeros(HEADS), 0.0
    late = range(T // 2, T)
    for b in range(B):
        for t in late:
            alike = [i for i in range(1, t + 1) if labels[b, i - 1] == labels[b, t]]
            same += weights[:, b, t, alike].sum(axis=-1)
            previous += weights[:, b, t, t - 1]
            uniform += len(alike) / (t + 1)
    mass = attention_mass(query, key, labels)
    for found, expected in zip(mass, (same, previous, uniform), strict=True):
        np.testing.assert_allclose(found, expected / (B * len(late)), rtol=1e-5)
