"""The classes of sequences, drawn on the host and on the device."""

import functools

import jax
import numpy as np
import pytest
import scipy

from gpicl_flax.tasks.class_distribution import ClassDistribution, burst_size, device_noise, host_noise

C, T, N = 6, 9, 20_000


@functools.cache
def drawn(where, length=T, **settings):
    distribution = ClassDistribution(C, **settings)
    if where == "host":
        return distribution.draw(host_noise(np.random.default_rng(0), N, length, C))
    keys = jax.random.split(jax.random.key(0), N)
    return np.asarray(jax.jit(jax.vmap(lambda key: distribution.draw(device_noise(key, length, C))))(keys))


WHERE = pytest.mark.parametrize("where", ["host", "device"])


def assert_frequencies(classes, probabilities):
    counts = np.bincount(classes.ravel(), minlength=len(probabilities))
    assert not counts[probabilities == 0].any()
    possible = probabilities > 0
    expected = counts.sum() * probabilities[possible]
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-3, counts


def zipf(exponent, without=()):
    weights = (1.0 + np.arange(C)) ** -exponent
    weights[list(without)] = 0
    return weights / weights.sum()


@WHERE
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_independent_classes_have_zipf_frequencies_at_every_position(where, exponent):
    classes = drawn(where, zipf_exponent=exponent)
    assert classes.shape == (N, T) and classes.dtype == np.int32
    for position in (0, 4, T - 1):
        assert_frequencies(classes[:, position], zipf(exponent))
    pairs = np.outer(zipf(exponent), zipf(exponent)).ravel()
    assert_frequencies(C * classes[:, 0] + classes[:, -1], pairs)


@WHERE
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_burst_has_three_of_the_query_three_of_another_and_two_others(where, exponent):
    classes = drawn(where, burstiness=1.0, zipf_exponent=exponent)
    context, query = classes[:, :-1], classes[:, -1]
    counts = (context[:, :, None] == np.arange(C)).sum(axis=1)
    assert (np.take_along_axis(counts, query[:, None], axis=1) == 3).all()
    np.fill_diagonal(of_query := np.zeros((C, C), bool), True)
    threes = (counts == 3) & ~of_query[query]
    assert (threes.sum(axis=1) == 1).all()
    assert (counts[~threes & ~of_query[query]].reshape(N, -1).sum(axis=1) == 2).all()
    assert_frequencies(query, zipf(exponent))
    other = threes.argmax(axis=1)
    for label in range(C):
        assert_frequencies(other[query == label], zipf(exponent, [label]))
    own = (query == 0) & (other == 1)
    rest = context[own][(context[own] != 0) & (context[own] != 1)]
    assert_frequencies(rest, zipf(exponent, [0, 1]))


@WHERE
def test_the_order_of_a_burst_is_random(where):
    classes = drawn(where, burstiness=1.0)
    is_query = classes[:, :-1] == classes[:, -1:]
    np.testing.assert_allclose(is_query.mean(axis=0), 3 / 8, atol=0.02)
    np.testing.assert_allclose((is_query[:, 0] & is_query[:, 1]).mean(), 3 / 8 * 2 / 7, atol=0.02)


@WHERE
def test_a_share_of_the_sequences_is_bursty(where):
    classes = drawn(where, burstiness=0.3)
    own = (classes[:, :-1] == classes[:, -1:]).sum(axis=1)
    # Of independent classes, some have the counts of a burst by chance.
    independent = drawn(where)
    by_chance = ((independent[:, :-1] == independent[:, -1:]).sum(axis=1) == 3).mean()
    assert (own == 3).mean() == pytest.approx(0.3 + 0.7 * by_chance, abs=0.015)


@pytest.mark.parametrize(("length", "size"), [(9, 3), (17, 6), (100, 37)])
def test_longer_bursts_keep_the_proportions(length, size):
    assert burst_size(length) == size
    classes = ClassDistribution(C, burstiness=1.0).draw(host_noise(np.random.default_rng(0), 50, length, C))
    assert ((classes[:, :-1] == classes[:, -1:]).sum(axis=1) == size).all()


def test_a_sequence_on_the_device_depends_on_its_key_alone():
    distribution = ClassDistribution(C, burstiness=0.5, zipf_exponent=1.0)
    draw = jax.vmap(lambda key: distribution.draw(device_noise(key, T, C)))
    keys = jax.random.split(jax.random.key(3), 8)
    np.testing.assert_array_equal(draw(keys)[5:6], draw(keys[5:6]))
