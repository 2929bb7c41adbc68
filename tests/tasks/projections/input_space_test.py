import numpy as np
import pytest

from gpicl_flax.tasks.projections import input_space

CASES = [  # stored shape, input shape
    ((3, 3, 1), (5, 4, 3)),
    ((4, 6, 1), (4, 6, 3)),
    ((4, 6, 3), (9, 6, 3)),
    ((5, 4, 1), (5, 4, 1)),
    ((7,), (7,)),
]


def random_images(shape, n=40):
    return np.random.default_rng(0).normal(size=(n, int(np.prod(shape)))).astype(np.float32)


def grown(images, stored, shape):
    return np.asarray(input_space.growth(stored, shape)(images), np.float64)


@pytest.mark.parametrize(("stored", "shape"), CASES)
@pytest.mark.parametrize("whole", [False, True])
def test_inner_products_are_those_of_the_grown_images(stored, shape, whole):
    images = random_images(stored)
    found = np.asarray(input_space.coordinates(stored, shape, basis=stored, whole=whole)(images), np.float64)
    assert found.shape[1] == np.prod(shape if whole else stored)
    expected = grown(images, stored, shape)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stored", "shape"), CASES)
def test_the_first_coordinates_say_all_about_images_of_the_basis_and_are_the_same_in_the_whole(stored, shape):
    images = random_images(stored)
    first = input_space.coordinates(stored, shape, basis=stored)(images)
    whole = np.asarray(input_space.coordinates(stored, shape, basis=stored, whole=True)(images))
    np.testing.assert_allclose(whole[:, : np.prod(stored)], first, atol=1e-5)
    np.testing.assert_allclose(whole[:, np.prod(stored) :], 0, atol=1e-5)


def test_images_of_another_stored_shape_have_coordinates_in_the_same_basis():
    """An image that both shapes can hold, and angles to others.

    One that grows from 2x2 by way of 3x3 is none; a constant is.
    """
    shape, basis, other = (5, 4, 3), (3, 3, 1), (5, 4, 3)
    ours, theirs = random_images(basis), random_images(other)
    in_basis = np.asarray(input_space.coordinates(basis, shape, basis=basis, whole=True)(ours), np.float64)
    foreign = np.asarray(input_space.coordinates(other, shape, basis=basis)(theirs), np.float64)
    assert foreign.shape[1] == 60
    np.testing.assert_allclose(in_basis @ foreign.T, grown(ours, basis, shape) @ theirs.T, rtol=1e-4, atol=1e-4)
    # The grown image itself, stored at the input shape, is the same input.
    again = input_space.coordinates(other, shape, basis=basis)(grown(ours, basis, shape).astype(np.float32))
    np.testing.assert_allclose(again, in_basis, atol=1e-5)


def test_a_constant_image_grows_to_the_same_constant():
    np.testing.assert_allclose(grown(np.full((1, 9), 7, np.float32), (3, 3, 1), (5, 4, 3)), 7, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "input_shape", "expected"),
    [
        ((28, 28, 1), (32, 32, 3), (28, 28, 1)),
        ((28, 28, 1), (14, 14, 1), (14, 14, 1)),
        ((64, 20, 3), (32, 32, 3), (32, 20, 3)),
        ((7,), (7,), (7,)),
    ],
)
def test_images_are_stored_shrunk_but_not_grown(shape, input_shape, expected):
    assert input_space.stored_shape(shape, input_shape) == expected
