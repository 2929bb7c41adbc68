"""Inputs of the Gram form: finite for images whose products round alike, and bit for bit what they were for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpicl_flax.tasks import projections
from gpicl_flax.tasks.projections.normals import standard_normals

X = 784
SMALL = 40, 196  # T and R of images made by hypothesis: one shape, so that one program serves all of them
make_sequences = jax.jit(jax.vmap(lambda key, c: projections.gram_inputs(key, c, X)))


def inputs(*sequences, num_draws=1):
    """inputs [num_draws * sequences, T, X] of coordinates [T, R] each, float32."""
    coordinates = np.tile(np.asarray(sequences, np.float32), (num_draws, 1, 1))
    return np.asarray(make_sequences(jax.random.split(jax.random.key(0), len(coordinates)), coordinates))


def images(kind, length=100):
    """[T, 784] normalised images."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((length, X))
    flat = np.repeat(rng.uniform(-0.4, 2.8, (length, 1)), X, axis=1)
    few = (np.arange(length) % 4 == 0)[:, None]
    return {
        "noise": noise,
        "flat": flat,
        "some flat": np.where(few, flat, noise),
        "few values": flat[np.arange(length) % 5],
        "half-planes": (np.arange(X) > rng.integers(X, size=(length, 1))) * rng.uniform(0.1, 2, (length, 1)),
        "random halves": (noise > 0) * rng.uniform(0.1, 2, (length, 1)),
        "identical": np.tile(noise[:1], (length, 1)),
        "zeros": np.zeros((length, X)),
        "some zeros": np.where(few, 0, noise),
        "many scales": flat * 10 ** rng.uniform(-3, 3, (length, 1)),
    }[kind]


KINDS = [
    *("noise", "flat", "some flat", "few values", "half-planes"),
    *("random halves", "identical", "zeros", "some zeros", "many scales"),
]


def assert_norms(found, coordinates, jitter=2e-7):
    """Checks that every example has the norm of a projection, up to the spread of X samples and to the jitter."""
    squares = (np.asarray(coordinates, np.float64) ** 2).sum(axis=1) / X
    error = np.abs((found.astype(np.float64) ** 2).mean(axis=-1) - squares)
    np.testing.assert_array_less(error, 6 * (2 / X) ** 0.5 * squares + 2 * jitter * squares.sum() + 1e-30)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_have_the_norms_of_projections(kind, scale):
    coordinates = scale * images(kind)
    found = inputs(coordinates, coordinates)
    assert np.isfinite(found).all()
    for sequence in found:
        assert_norms(sequence, coordinates)


@pytest.mark.parametrize("length", [400, pytest.param(768, marks=pytest.mark.slow), 1000])
def test_long_sequences_of_equal_images_have_nearly_equal_inputs(length):
    sequences = [images(kind, length) for kind in ("identical", "few values", "flat")]
    found = inputs(*sequences)
    assert np.isfinite(found).all()
    for sequence, coordinates, period in zip(found, sequences, (1, 5, None), strict=True):
        assert_norms(sequence, coordinates)
        if period:
            distances = np.linalg.norm(sequence[period:] - sequence[:-period], axis=-1)
            # Each of the two has a jitter of its own, and one of many distances is the largest.
            assert distances.max() < (3 * np.finfo(np.float32).eps * (coordinates**2).sum()) ** 0.5


@pytest.mark.parametrize("kind", ["noise", "flat", "some flat", "few values", "half-planes", "identical"])
def test_the_covariance_over_draws_is_the_gram_matrix(kind):
    coordinates = images(kind)
    found = inputs(coordinates, num_draws=30).astype(np.float64)
    expected = coordinates @ coordinates.T / X
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    covariance = np.einsum("btx,bsx->ts", found, found, optimize=True) / (len(found) * X)
    jitter = np.finfo(np.float32).eps * np.trace(expected)
    np.testing.assert_array_less(np.abs(covariance - expected) - 2 * jitter, 6 * (2 / (len(found) * X)) ** 0.5 * scale)


def test_ordinary_sequences_keep_their_bits_beside_flat_ones():
    @jax.jit
    @jax.vmap
    def plain(key, coordinates):
        gram = jnp.matmul(coordinates, coordinates.T, precision="highest") / X
        jitter = jnp.finfo(gram.dtype).eps * jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
        factor = jnp.linalg.cholesky(gram + jitter * jnp.eye(len(gram)), symmetrize_input=False)
        return factor @ standard_normals(key, len(gram), X)

    noise, zeros, flat = images("noise"), images("some zeros"), images("flat")
    coordinates = np.asarray([noise, flat, zeros, flat, 1e3 * noise], np.float32)
    keys = jax.random.split(jax.random.key(0), len(coordinates))
    expected, ordinary = plain(keys, coordinates), [0, 2, 4]
    assert np.isnan(expected[1]).any(), "the plain factor of this sequence exists, so it tests nothing"
    found = make_sequences(keys, coordinates)
    np.testing.assert_array_equal(found[ordinary, ...], expected[ordinary, ...])
    same_kind = make_sequences(keys, coordinates[[0, 2, 0, 2, 4]])
    np.testing.assert_array_equal(same_kind[0], expected[0])
    assert np.isfinite(found).all()


def test_a_sequence_that_is_not_finite_ends():
    assert np.isnan(inputs(np.where(np.arange(9)[:, None] == 3, np.nan, images("noise", 9)))).any()


@st.composite
def piecewise_constant(draw):
    """[T, R]: images of a few pieces, each with one of a few values; many images may be equal."""
    length, num_pixels = SMALL
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    palette = rng.normal(draw(st.sampled_from([0, 1, 30])), 1, draw(st.integers(1, 6))) * draw(
        st.sampled_from([1e-3, 1, 1e3])
    )
    pieces = np.sort(rng.integers(num_pixels, size=(length, draw(st.integers(0, 3)))), axis=1)
    which = (np.arange(num_pixels)[:, None] >= pieces[:, None]).sum(axis=-1)
    values = rng.choice(palette, (length, 4)) * rng.choice([1, *rng.uniform(0.1, 2, 3)], (length, 1))
    found = np.take_along_axis(values, which, axis=1)
    return found[rng.integers(draw(st.integers(1, length)), size=length)]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(piecewise_constant())
def test_inputs_of_piecewise_constant_images_have_the_norms_of_projections(coordinates):
    (found,) = inputs(coordinates)
    assert np.isfinite(found).all()
    assert_norms(found, coordinates)
