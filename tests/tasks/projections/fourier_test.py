"""Random Fourier features of projected inputs, against numpy float64 and the kernel that they approximate."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.projections.fourier import WIDTHS, fourier_features

X, RMS = 64, 0.7
TASKS = ProjectedImages(input_shape=(9,), sequence_length=6, permute_labels_prob=0.0, projection="span")


def drawn(key):
    """Width and phases [X] of the features of a key."""
    width_key, phase_key = jax.random.split(key)
    low, high = np.log(WIDTHS)
    width = math.exp(jax.random.uniform(width_key, minval=low, maxval=high))
    return width, np.asarray(jax.random.uniform(phase_key, (X,), maxval=2 * math.pi), np.float64)


def test_features_are_those_of_the_formula():
    projected = np.random.default_rng(0).normal(size=(5, X)).astype(np.float32)
    for key in jax.random.split(jax.random.key(0), 3):
        width, phases = drawn(key)
        expected = math.sqrt(2) * RMS * np.cos(projected.astype(np.float64) / (width * RMS) + phases)
        np.testing.assert_allclose(fourier_features(key, projected, RMS), expected, atol=2e-5)


def test_the_width_is_log_uniform_and_its_middle_is_the_median_distance():
    found = [drawn(key)[0] for key in jax.random.split(jax.random.key(1), 300)]
    low, high = np.log(WIDTHS)
    assert scipy.stats.kstest((np.log(found) - low) / (high - low), "uniform").pvalue > 1e-3
    assert math.isclose(math.prod(WIDTHS), 2)


def test_their_mean_product_is_the_gaussian_kernel():
    rng = np.random.default_rng(0)
    inputs = RMS * rng.normal(size=(4, 30))
    inputs[1] = inputs[0] + 0.3 * RMS * rng.normal(size=30)
    weights = rng.normal(size=(20_000, 30))
    distances = np.square(inputs[:, None] - inputs).sum(-1)
    for key in jax.random.split(jax.random.key(2), 3):
        # As many features as there are rows of weights, all of one width.
        features = np.asarray(fourier_features(key, (inputs @ weights.T / math.sqrt(30)).astype(np.float32), RMS))
        width = drawn(key)[0]
        kernel = RMS**2 * np.exp(-distances / (2 * 30 * (width * RMS) ** 2))
        np.testing.assert_allclose(features @ features.T / 20_000, kernel, atol=0.02 * RMS**2)


def sequences(tasks, dataset, ids, indices):
    drawing = tasks.projection_spec((9,))
    data = tasks.device_data(dataset, drawing)
    batch = {"task_ids": np.asarray(ids, np.uint32)} | dataset.train.gather({"example_indices": np.asarray(indices)})
    settings = {"max_bytes": 2**20, "num_shards": 1}
    made = tasks.make_sequences(drawing, np.uint32(0), batch, data, np.float32(1.0), **settings)
    return np.asarray(made.inputs, np.float64), np.asarray(made.targets)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"normalize": False},
        pytest.param({"num_tasks": None, "projection": "gram"}, marks=pytest.mark.slow),
    ],
)
def test_a_task_has_the_features_of_its_linear_projections(toy_dataset, settings):
    linear = dataclasses.replace(TASKS, **settings)
    fourier = dataclasses.replace(linear, features="fourier")
    rng = np.random.default_rng(0)
    ids, indices = np.arange(100), rng.integers(200, size=(100, 6))
    (projected, labels), (features, own_labels) = (
        sequences(each, toy_dataset, ids, indices) for each in (linear, fourier)
    )
    np.testing.assert_array_equal(labels, own_labels)
    rms = fourier.data_run_info(toy_dataset, fourier.projection_spec((9,)))["input_rms"]
    assert np.abs(features).max() <= math.sqrt(2) * rms * (1 + 1e-6)
    np.testing.assert_allclose(np.mean(features**2), rms**2, rtol=0.1)
    np.testing.assert_allclose(np.mean(projected**2), rms**2, rtol=0.3)
    # The same task gives the same features, wherever it is in a batch.
    order = rng.permutation(100)[:7]
    again, _ = sequences(fourier, toy_dataset, ids[order], indices[order])
    np.testing.assert_allclose(again, features[order], atol=1e-5)


def test_two_sequences_of_a_task_share_width_and_phases(toy_dataset):
    fourier = dataclasses.replace(TASKS, features="fourier")
    indices = np.arange(12).reshape(2, 6)
    indices[1, 0] = indices[0, 0]
    features, _ = sequences(fourier, toy_dataset, [3, 3], indices)
    np.testing.assert_allclose(features[0, 0], features[1, 0], atol=1e-5)
    other, _ = sequences(fourier, toy_dataset, [3, 4], indices)
    assert np.abs(other[0, 0] - other[1, 0]).max() > 0.1


def test_the_setting_is_known_wherever_it_makes_a_difference(toy_dataset):
    fourier = dataclasses.replace(TASKS, features="fourier")
    assert fourier.program_settings != TASKS.program_settings
    with pytest.raises(UsageError, match="TaskDistribution.features must be one of linear, fourier, not 'cubic'"):
        dataclasses.replace(TASKS, features="cubic")
    # What is compiled ahead has the form of what is used.
    drawing = fourier.projection_spec((9,))
    assert fourier.data_run_info(toy_dataset, drawing)["features"] == "fourier"
    assert "features" not in TASKS.data_run_info(toy_dataset, drawing)
    shapes, _ = fourier.abstract_batch(drawing, False, lambda dtype, shape: shape, lambda dtype, shape: shape)
    assert shapes.fourier_rms == () and fourier.device_data(toy_dataset, drawing).fourier_rms.shape == ()
    assert TASKS.device_data(toy_dataset, drawing).fourier_rms is None
