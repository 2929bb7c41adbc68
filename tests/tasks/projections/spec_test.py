"""The three forms draw tasks of one distribution; dense and span draw the same tasks."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import augmentation, keys
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.projections import input_space
from gpicl_flax.tasks.projections.spec import KINDS, ProjectionSpec, choose

STORED, SHAPE, T = (3, 3, 1), (5, 4, 3), 6
X = 60


@pytest.fixture(scope="module")
def images():
    """[T, 9] stored images, normalised, the last a repetition of the first."""
    images = np.random.default_rng(0).normal(0.3, 1, (T, 9)).astype(np.float32)
    images[-1] = images[0]
    return images


def projected(projection, images, num_tasks, first_id=0, stored=STORED, seed=0):
    """inputs [num_tasks, T, X] of the same images in as many tasks."""
    projection = ProjectionSpec(projection, STORED, SHAPE)
    coordinates = np.asarray(projection.coordinates(stored)(images))
    make = functools.partial(augmentation.Augmentation(projection, 4).make_sequences, permute_labels_prob=1.0)
    ids = np.arange(first_id, first_id + num_tasks, dtype=np.uint32)
    examples = augmentation.Examples(
        np.broadcast_to(coordinates, (num_tasks, *coordinates.shape)), np.zeros((num_tasks, len(images)), np.int32)
    )
    return np.asarray(jax.jit(make)(keys.task_key(seed), ids, examples)[0], np.float64)


def test_dense_and_span_are_the_same_tasks(images):
    np.testing.assert_allclose(projected("dense", images, 8), projected("span", images, 8), atol=2e-6)


def test_a_task_is_the_same_matrix_for_images_of_another_stored_shape(images):
    """What a task makes of grown images does not depend on how these were stored."""
    at_input_shape = np.asarray(input_space.growth(STORED, SHAPE)(images))
    for projection in ("span", "dense"):
        found = projected(projection, at_input_shape, 8, stored=SHAPE)
        np.testing.assert_allclose(found, projected(projection, images, 8), atol=3e-6)


def test_a_task_is_linear_in_the_inputs(images):
    found = projected("span", np.stack([images[0], images[1], 2 * images[0] - 3 * images[1]]), 4)
    np.testing.assert_allclose(found[:, 2], 2 * found[:, 0] - 3 * found[:, 1], atol=1e-5)


@pytest.mark.parametrize("projection", KINDS)
def test_moments_are_those_of_a_projection_with_iid_entries(projection, images):
    """Features are independent, each with the covariance X_s X_s^T / X over the examples."""
    num_tasks = 3000
    inputs = projected(projection, images, num_tasks)
    grown = np.asarray(input_space.growth(STORED, SHAPE)(images), np.float64)
    expected = grown @ grown.T / X
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    found = np.einsum("btx,bsx->ts", inputs, inputs) / (num_tasks * X)
    np.testing.assert_array_less(np.abs(found - expected) / scale, 5 * (2 / (num_tasks * X)) ** 0.5)
    assert np.abs(inputs.mean(axis=(0, 2)) / expected.diagonal() ** 0.5).max() < 5 / (num_tasks * X) ** 0.5
    standard = inputs / expected.diagonal()[:, None] ** 0.5
    assert scipy.stats.kstest(standard[:, 2].reshape(-1), "norm").pvalue > 1e-3
    assert abs(scipy.stats.kurtosis(standard[:, 2].reshape(-1))) < 5 * (24 / (num_tasks * X)) ** 0.5
    # Other features of the same and of another example are independent, and so are other tasks.
    for pairs in (standard[:, 1], standard[:, 1] * np.sign(standard[:, 3])):
        correlations = np.corrcoef(pairs, rowvar=False)[np.triu_indices(X, k=1)]
        assert np.abs(correlations).max() < 5.5 * num_tasks**-0.5
    between = (standard[1:] * standard[:-1]).mean(axis=(0, 2))
    assert np.abs(between).max() < 5 / (num_tasks * X) ** 0.5


@pytest.mark.parametrize("projection", KINDS)
def test_repeated_images_have_equal_projections(projection, images):
    inputs = projected(projection, images, 200)
    difference = np.linalg.norm(inputs[:, 0] - inputs[:, -1], axis=-1) / np.linalg.norm(inputs[:, 0], axis=-1)
    assert difference.max() < (0.01 if projection == "gram" else 1e-6)


@pytest.mark.parametrize(
    "statistic",
    [
        lambda x: np.linalg.norm(x, axis=(1, 2)),
        lambda x: (x[:, 0] * x[:, 1]).sum(axis=-1),
        lambda x: np.linalg.svd(x[:, :-1], compute_uv=False)[:, 0],
        lambda x: np.linalg.svd(x[:, :-1], compute_uv=False)[:, -1],
        lambda x: np.abs(x).max(axis=(1, 2)),
        lambda x: x[:, 2, 7],
        lambda x: np.linalg.norm(x[:, 0] - x[:, 3], axis=-1),
    ],
)
def test_two_samples_of_span_and_gram_cannot_be_told_apart(statistic, images):
    samples = [
        statistic(projected(projection, images, 4000, seed=seed)) for projection, seed in (("span", 1), ("gram", 2))
    ]
    assert scipy.stats.ks_2samp(*samples).pvalue > 1e-3


@pytest.mark.parametrize("inputs", [np.zeros((T, 9)), np.ones((T, 9)), np.full((100, 9), 1e3), np.eye(9)[:1]])
def test_the_gram_form_of_degenerate_sequences_is_finite(inputs):
    found = projected("gram", inputs.astype(np.float32), 3)
    assert np.isfinite(found).all()
    scale = np.linalg.norm(inputs, axis=1).mean() / 3  # a grown image has 60 / 9 times the sum of squares
    assert found.std() == pytest.approx(scale, rel=0.15)


def test_what_a_setting_chooses():
    large = {"stored_shape": (28, 28, 1), "input_shape": (32, 32, 3), "sequence_length": 100}
    assert choose("auto", **large, replayed=False).kind == "gram"
    assert choose("auto", **large, replayed=True).kind == "span"
    assert choose("auto", **large | {"sequence_length": 200}, replayed=False).kind == "span"
    small = {"stored_shape": (14, 14, 1), "input_shape": (14, 14, 1), "sequence_length": 100}
    assert choose("auto", **small, replayed=False).kind == "span"
    for projection in KINDS:
        assert choose(projection, **small, replayed=False).kind == projection
    for projection, shape, number in (
        ("span", (28, 28, 1), 784),
        ("span", (32, 32, 3), 3072),
        ("dense", (28, 28, 1), 3072),
        ("gram", (28, 28, 1), 784),
    ):
        coordinates = choose(projection, **large, replayed=False).coordinates(shape)
        assert coordinates(np.zeros((1, np.prod(shape)), np.float32)).shape == (1, number)


def test_a_form_survives_json():
    projection = ProjectionSpec("span", STORED, SHAPE)
    assert (
        ProjectionSpec("span", list(STORED), list(SHAPE))
        == projection
        == ProjectionSpec.from_run_info(projection.as_run_info())
    )


@pytest.mark.parametrize("settings", [{"num_tasks": 2**25}, {"num_tasks": None, "sequences_per_task": 2}])
def test_the_gram_form_is_refused_where_tasks_are_used_again(settings):
    with pytest.raises(UsageError, match="num_tasks = None and sequences_per_task = 1"):
        ProjectedImages(projection="gram", **settings)
    with pytest.raises(UsageError, match="must be one of auto, dense, span, gram, not 'sparse'"):
        ProjectedImages(projection="sparse")
