import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.datasets.embedding import embed
from gpicl_flax.tasks.datasets.encoders import Encoder

NUM_FEATURES = 5


@pytest.fixture
def dataset():
    """23 train and 9 test images of 4x3x1; the test images are brighter."""
    rng = np.random.default_rng(0)

    def split(size, low, high):
        images = rng.integers(low, high, (size, 4 * 3), dtype=np.uint8)
        return Split(images, rng.integers(0, 10, size).astype(np.int32))

    return BaseDataset("toy", split(23, 0, 128), split(9, 128, 256), 0.0, 1.0, (4, 3, 1), 10)


def make_encoder(function=lambda weights, images: images.reshape(len(images), -1) @ weights + 3):
    """An encoder of one layer, and the shapes of the batches that it was compiled for."""
    shapes = []

    @jax.jit
    def traced(weights, images):
        shapes.append(images.shape)
        return function(weights, images.astype(jnp.float32))

    weights = np.random.default_rng(1).normal(size=(4 * 3, NUM_FEATURES)).astype(np.float32)
    return Encoder("toy", 4, NUM_FEATURES, traced, weights), shapes


@pytest.mark.parametrize("batch_size", [1, 4, 23, 64])
def test_features_are_standardised_by_the_training_split(dataset, batch_size):
    encoder, shapes = make_encoder()
    embedded = embed(dataset, encoder, batch_size=batch_size)

    train, test = (
        np.asarray(encoder(split.inputs.reshape(-1, 4, 3, 1))).astype(np.float64)
        for split in (dataset.train, dataset.test)
    )
    mean, std = train.mean(), train.std()
    for split, features, source in zip(embedded[:2], (train, test), (dataset.train, dataset.test), strict=True):
        assert split.inputs.dtype == np.float32
        np.testing.assert_allclose(split.inputs, np.tanh((features - mean) / std), atol=1e-5)
        np.testing.assert_array_equal(split.labels, source.labels)
    # The test split is not centred by itself.
    assert abs(np.arctanh(embedded.train.inputs.astype(np.float64)).mean()) < 1e-4
    assert abs((test.mean() - mean) / std) > 0.1
    assert shapes[0] == (batch_size, 4, 3, 1) and shapes[1:] in ([(23, 4, 3, 1), (9, 4, 3, 1)], [(9, 4, 3, 1)])


def test_neighbours_change_nothing(dataset):
    """Reversed examples give reversed features, which the authors' statistics of each batch do not."""
    encoder, _ = make_encoder()
    flipped = BaseDataset(
        "toy", Split(dataset.train.inputs[::-1], dataset.train.labels[::-1]), dataset.test, 0.0, 1.0, (4, 3, 1), 10
    )
    expected, found = (embed(data, encoder, batch_size=4).train.inputs for data in (dataset, flipped))
    np.testing.assert_allclose(found[::-1], expected, atol=1e-5)


def test_progress_counts_both_splits(dataset):
    calls = []
    embed(dataset, make_encoder()[0], batch_size=10, on_batch=lambda *call: calls.append(call))
    assert calls == [(10, 32), (20, 32), (23, 32), (32, 32)]


def test_groups_are_not_embedded(dataset):
    groups = (Split(split.inputs, split.labels, group_size=1) for split in (dataset.train, dataset.test))
    grouped = BaseDataset("toy", *groups, 0.0, 1.0, (4, 3, 1), 10)
    with pytest.raises(UsageError, match="'toy' is made of groups"):
        embed(grouped, make_encoder()[0])


def test_features_are_not_embedded(toy_dataset):
    with pytest.raises(UsageError, match="'toy' holds features already"):
        embed(toy_dataset, make_encoder()[0])


@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_useless_features_are_a_usage_error(dataset, value):
    encoder, _ = make_encoder(lambda weights, images: jnp.full((len(images), NUM_FEATURES), value))
    with pytest.raises(UsageError, match="cannot be standardised"):
        embed(dataset, encoder)


def test_batch_size_is_checked(dataset):
    with pytest.raises(UsageError, match="positive integer, not 0"):
        embed(dataset, make_encoder()[0], batch_size=0)
