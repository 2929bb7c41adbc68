import importlib.util
import logging
import pathlib
import shutil
import tempfile

import h5py
import jax
import numpy as np
import pytest
import scipy.ndimage

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import encoders

SIZE = 32  # the smallest that ResNet50 takes


@pytest.fixture(scope="module")
def keras():
    return encoders._import_keras()


@pytest.fixture(scope="module")
def network(keras):
    """ResNet50 as Keras gives it, with random weights, and with normalisation statistics that are not 0 and 1."""
    model = keras.applications.ResNet50(weights=None, input_shape=(SIZE, SIZE, 3))
    rng = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        variable.assign(variable.numpy() + rng.uniform(0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def headless(keras, network):
    return keras.Model(network.input, network.get_layer("avg_pool").output)


@pytest.fixture(scope="module")
def folder(network, headless):
    """Weights files of every kind; each is 90 MB, so they go away with the module."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        network.save_weights(folder / "full.weights.h5")
        headless.save_weights(folder / "headless.weights.h5")
        network.save(folder / "full.h5")  # the older format, as that of the files that Keras distributes
        headless.save(folder / "headless.h5")
        yield folder


@pytest.fixture(scope="module")
def encoder(folder):
    return encoders.load("resnet50", weights=folder / "headless.weights.h5", image_size=SIZE)


def reference(keras, model, images):
    """Features by Keras's own call, of images in RGB and of the right size, preprocessed by NumPy."""
    preprocessed = keras.applications.resnet50.preprocess_input(images.astype(np.float32))
    return model.predict(preprocessed, verbose=0)


def assert_close(features, expected):
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_features_are_those_of_keras(keras, headless, encoder):
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    expected = reference(keras, headless, images)
    assert expected.shape == (3, encoder.num_features) == (3, 2048)
    assert expected.std(axis=0).max() > 0.01 * np.abs(expected).max()  # the images do not all look the same to it
    assert_close(encoder(images), expected)


@pytest.mark.slow
def test_images_are_resized_and_grey_becomes_rgb(keras, headless, encoder):
    images = np.random.default_rng(2).integers(0, 256, (3, 48, 20, 1), dtype=np.uint8)
    zoom = (1, SIZE / 48, SIZE / 20, 1)
    resized = scipy.ndimage.zoom(images.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
    expected = reference(keras, headless, np.concatenate([resized] * 3, axis=-1))
    assert_close(encoder(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["full.weights.h5", "full.h5", "headless.h5"])
def test_weights_files_of_every_kind_hold_the_same(folder, encoder, file):
    loaded = encoders.load("resnet50", weights=str(folder / file), image_size=SIZE)
    jax.tree.map(np.testing.assert_array_equal, loaded.weights, encoder.weights)


@pytest.mark.slow
def test_weights_are_arguments_of_the_program(encoder):
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    zeros = jax.tree.map(np.zeros_like, encoder.weights)
    np.testing.assert_array_equal(encoder.function(zeros, images), 0)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["headless.weights.h5", "headless.h5"])
def test_cut_off_weights_files_are_usage_errors(folder, tmp_path, file):
    (tmp_path / file).write_bytes((folder / file).read_bytes()[:1_000_000])
    check_weights_error(tmp_path / file, rf"{file}: not a readable weights file of resnet50 \(.*truncated")


@pytest.mark.slow
def test_weights_of_another_network_are_a_usage_error(keras, tmp_path):
    path = tmp_path / "other.h5"
    keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(2, 1)]).save(path)
    check_weights_error(path, "other.h5: not a readable weights file of resnet50")


@pytest.mark.slow
def test_a_weights_file_that_lacks_a_layer_is_a_usage_error(folder, tmp_path):
    path = tmp_path / "partial.weights.h5"
    shutil.copy(folder / "headless.weights.h5", path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d_5"]
    check_weights_error(path, "partial.weights.h5: not a readable weights file of resnet50")
    path.unlink()


def test_missing_weights_file_is_a_usage_error(tmp_path):
    check_weights_error(tmp_path / "none.h5", "none.h5: no such weights file")


def check_weights_error(path, match):
    with pytest.raises(UsageError, match=match) as error:
        encoders.load("resnet50", weights=path, image_size=SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_without_network_the_error_says_where_the_weights_are(keras, monkeypatch):
    asked = []

    def no_network(name, address, **_):
        asked.append(address)
        raise Exception(f"URL fetch failure\non {address}")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(UsageError, match="URL fetch failure on") as error:
        encoders.load("resnet50", image_size=SIZE)
    assert len(asked) == 1 and f"get {asked[0]} " in str(error.value)
    assert str(error.value).endswith("--weights resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_random_weights_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        encoder = encoders.load("resnet50", weights="random", image_size=SIZE)
    assert encoder.num_features == 2048
    assert "RANDOM weights: its features mean nothing" in caplog.text


def test_missing_keras_is_a_usage_error(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "keras" else find_spec(name))
    with pytest.raises(UsageError, match="needs Keras; install gpicl_flax with the extra `embeddings`"):
        encoders.load("resnet50")


@pytest.mark.slow
def test_another_backend_is_a_usage_error(keras, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(UsageError, match="already imported with torch"):
        encoders.load("resnet50")


def test_unknown_encoders_and_sizes_are_usage_errors():
    with pytest.raises(UsageError, match="unknown encoder 'resnet'; there are: resnet50"):
        encoders.load("resnet")
    with pytest.raises(UsageError, match="images of 16x16: Input size must be at least 32x32"):
        encoders.load("resnet50", weights="random", image_size=16)


@pytest.mark.slow
@pytest.mark.parametrize("shape, dtype", [((2, 8, 8, 2), np.uint8), ((2, 64), np.uint8), ((2, 8, 8, 3), np.float32)])
def test_other_inputs_than_images_are_usage_errors(encoder, shape, dtype):
    with pytest.raises(UsageError, match="takes uint8 images"):
        encoder(np.zeros(shape, dtype))
