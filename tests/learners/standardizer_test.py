"""Standardised features: what sizes they can have, and where they end."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra.numpy import array_shapes, arrays

from gpicl_flax.learners.standardizer import MAX_STANDARDISED, Standardizer, first_outlier

settings = hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
finite = st.floats(allow_nan=False, allow_infinity=False)
tables = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shared", [False, True])
def test_ordinary_features_are_standardised_as_by_the_textbook(rng, shared):
    features = 100 + rng.normal(size=(50, 4)) * [1e-6, 1, 1e3, 1e6]
    axis = None if shared else 0
    found = Standardizer.fit(features, shared=shared)(features)
    np.testing.assert_array_equal(found, (features - features.mean(axis)) / features.std(axis))


@settings
@hypothesis.given(tables, st.booleans())
def test_any_finite_features_are_standardised(features, shared):
    with np.errstate(all="raise", under="ignore"):
        standardised = Standardizer.fit(features, shared=shared)(features)
    assert np.isfinite(standardised).all()
    count = features.size if shared else len(features)
    assert np.abs(standardised).max() <= count**0.5 * (1 + 1e-6)
    assert first_outlier(standardised) is None


@settings
@hypothesis.given(tables, tables, st.integers(-1100, 1000))
def test_any_finite_query_gives_a_number_or_is_named(features, queries, exponent):
    width = min(features.shape[1], queries.shape[1])
    standardizer = Standardizer.fit(np.ldexp(features[:, :width] / 2.0**1023, exponent))
    standardised = standardizer(queries[:, :width])
    assert not np.isnan(standardised).any()
    outlier = first_outlier(standardised)
    assert outlier is not None or np.isfinite(standardised.astype(np.float32) ** 2).all()


@settings
@hypothesis.given(st.lists(st.integers(-900, 900), min_size=3, max_size=3), st.booleans())
def test_a_power_of_two_changes_no_bit(exponents, shared):
    features = np.random.default_rng(0).normal(size=(9, 3))
    if shared:
        exponents = exponents[:1]
    scaled = np.ldexp(features, exponents)
    plain, other = Standardizer.fit(features, shared=shared), Standardizer.fit(scaled, shared=shared)
    np.testing.assert_array_equal(other(scaled), plain(features))


def test_constant_features_are_zero(rng):
    constants = [0.1, 1e9, 0, 1e160, 1e-200, 5e-324, np.finfo(float).max]
    features = np.column_stack([*(np.full(9, x) for x in constants), rng.normal(size=9)])
    standardised = Standardizer.fit(features)(features)
    np.testing.assert_array_less(np.abs(standardised[:, :-1]), 1e-6)
    np.testing.assert_allclose(standardised[:, -1].std(), 1)


def test_a_difference_from_a_constant_counts_in_proportion():
    """In units of one if they are ordinary numbers, as for the border of an image."""
    constant = np.zeros((5, 2)) + [0, 3]
    np.testing.assert_array_equal(Standardizer.fit(constant)(constant[:1] + [2, 7]), [[2, 7]])
    for scale in (1e-200, 1e160):
        features = np.column_stack([constant, np.arange(5)]) * scale
        standardised = Standardizer.fit(features)(features[:1] + np.array([2, 7, 0]) * scale)
        assert (np.abs(standardised[0, :2]) > 0.1).all() and np.abs(standardised).max() < 10


def test_the_first_outlier_is_named():
    standardised = np.zeros((3, 2))
    assert first_outlier(standardised) is None
    standardised[1, 1], standardised[2] = -2 * MAX_STANDARDISED, np.inf
    assert first_outlier(standardised) == (1, 1)
