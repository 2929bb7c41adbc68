"""Encoders: ImageNet networks of Keras without their last layer.

Each is frozen, as one compiled function of uint8 images.
"""

import dataclasses
import functools
import importlib
import importlib.util
import logging
import os
import pathlib
import textwrap
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.errors import UsageError, one_line

logger = logging.getLogger(__name__)


class _Network(NamedTuple):
    """The location of a network and its weights.

    Attributes:
      constructor: name of the network in keras.applications.
      module: the module of keras.applications with the network's `preprocess_input`.
      address: the address of its ImageNet weights without the last layer; only error messages use it.
    """

    constructor: str
    module: str
    address: str


_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications"
ENCODERS = {
    "resnet50": _Network(
        "ResNet50", "resnet50", f"{_ADDRESS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen network from images to features.

    Attributes:
      name: one of ENCODERS.
      image_size: height and width that images are resized to.
      num_features: the number of features of an image.
      function: a compiled function of weights and images.
      weights: trainable and other variables of the network.
    """

    name: str
    image_size: int
    num_features: int
    function: Callable[[Any, np.ndarray | jax.Array], jax.Array]
    weights: Any

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Maps images uint8 [n, height, width, 1 or 3] to float32 [n, num_features], without waiting for the result."""
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
            raise UsageError(
                f"encoder {self.name} takes uint8 images [n, height, width, 1 or 3], "
                f"not {images.dtype} {list(images.shape)}"
            )
        return self.function(self.weights, images)


def load(name: str, *, weights: str | os.PathLike[str] = "imagenet", image_size: int = 224) -> Encoder:
    """Loads encoder `name`.

    Images are resized bilinearly without antialiasing, and grey ones become RGB by repetition. The preprocessing of
    grey values before the network's first layer is part of the encoder.

    Args:
      name: one of ENCODERS.
      weights: 'imagenet', which Keras downloads and keeps; the path of a weights file of the network, with or without
        its last layer (.weights.h5, or .h5 as Keras distributes it); or 'random', for tests.
      image_size: height and width that images are resized to.

    Raises:
      UsageError: there is no such encoder, Keras is missing, or the weights are missing, damaged or those of another
        network.
    """
    if name not in ENCODERS:
        raise UsageError(f"unknown encoder {name!r}; there are: {', '.join(ENCODERS)}")
    path = None if weights in ("imagenet", "random") else pathlib.Path(weights).expanduser()
    if path and not path.is_file():
        raise UsageError(f"{path}: no such weights file")
    keras, network = _import_keras(), ENCODERS[name]
    build = functools.partial(
        getattr(keras.applications, network.constructor), input_shape=(image_size, image_size, 3), pooling="avg"
    )
    try:
        model = build(include_top=False, weights=None)
    except ValueError as error:
        raise UsageError(f"encoder {name} with images of {image_size}x{image_size}: {_short(error)}") from error
    if path:
        _read_weights(name, model, build, path)
    elif weights == "imagenet":
        model = _download(network, build)
    else:
        logger.warning("encoder %s has RANDOM weights: its features mean nothing and are good for tests only", name)

    # Keras is only needed to build the network. The function is compiled by JAX and takes the weights as an argument,
    # so that they do not become constants of the program.
    preprocess = importlib.import_module(f"keras.applications.{network.module}").preprocess_input

    @jax.jit
    def function(variables: tuple[list[jax.Array], list[jax.Array]], images: jax.Array) -> jax.Array:
        shape = (len(images), image_size, image_size, images.shape[-1])
        pixels = jax.image.resize(images.astype(jnp.float32), shape, "bilinear", antialias=False)
        pixels = jnp.repeat(pixels, 3 // pixels.shape[-1], axis=-1)
        features, _ = model.stateless_call(*variables, preprocess(pixels), training=False)
        return features.astype(jnp.float32)

    variables = tuple([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    return Encoder(name, image_size, model.output_shape[-1], function, variables)


def _import_keras() -> ModuleType:
    if importlib.util.find_spec("keras") is None:
        raise UsageError("an encoder needs Keras; install gpicl_flax with the extra `embeddings`")
    os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it once, when it is imported
    import keras

    if keras.config.backend() != "jax":
        raise UsageError(
            f"an encoder needs Keras on its JAX backend, but Keras is already imported with {keras.config.backend()}"
        )
    # The user's keras.json may request something else.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    return keras


def _download(network: _Network, build: Callable[..., Any]) -> Any:
    """Returns the network with ImageNet weights, from Keras's cache or the internet."""
    try:
        return build(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises plain Exception
        raise UsageError(
            f"no ImageNet weights of {network.constructor} ({_short(error)}); "
            f"get {network.address} on a machine that can, and pass it: --weights {pathlib.Path(network.address).name}"
        ) from error


def _read_weights(name: str, model: Any, build: Callable[..., Any], path: pathlib.Path) -> None:
    """Sets the weights of `model` from a file of the network with or without its last layer."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Keras warns about every layer before it raises
            try:
                model.load_weights(path)
            except ValueError:  # the layers differ
                full = build(include_top=True, weights=None)
                full.load_weights(path)
                model.set_weights(full.get_weights()[: len(model.weights)])
    except Exception as error:  # h5py and Keras raise many kinds on a damaged file
        raise UsageError(f"{path}: not a readable weights file of {name} ({_short(error)})") from error


def _short(error: Exception) -> str:
    return textwrap.shorten(one_line(error), 200, placeholder=" ...")  # Keras can fill a page
