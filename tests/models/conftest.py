"""What the tests of single models share: data, parameters that all matter, a check of gradients."""

import functools

import jax
import numpy as np
import pytest
import scipy.special
from flax import linen as nn


@pytest.fixture
def data():
    """Three sequences of seven examples with five features, and their labels of four classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 7, 5)).astype(np.float32), rng.integers(4, size=(3, 7)).astype(np.int32)


@pytest.fixture
def random_params():
    """(model, data, scale) -> parameters that are all random, around one if they scale a norm and else around zero."""

    def draw(model, data, scale=0.4):
        shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *data))["params"]
        rng = np.random.default_rng(0)

        def array(path, shape):
            return np.asarray((path[-1].key == "scale") + scale * rng.normal(size=shape.shape), np.float32)

        return jax.tree_util.tree_map_with_path(array, shapes)

    return draw


@pytest.fixture(scope="session")
def quick_jit():
    """jax.jit without the optimisations that cost most of the time of compiling."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def check_gradients(quick_jit):
    """(model, params, data, reference): checks the gradient of the mean cross entropy, one parameter array at a time.

    The slope along a random direction is that of central differences of reference(params, inputs, labels) in float64,
    up to a thousandth of the gradient's length.
    """

    def check(model, params, data, reference):
        inputs, labels = data
        one_hot = np.eye(labels.max() + 1)[labels]

        def loss(params):
            log_probabilities = jax.nn.log_softmax(model.apply({"params": params}, inputs, labels))
            return -(one_hot * log_probabilities).sum() / labels.size

        def reference_loss(params):
            log_probabilities = scipy.special.log_softmax(reference(params, inputs, labels), axis=-1)
            return -(one_hot * log_probabilities).sum() / labels.size

        gradients = jax.tree.leaves(quick_jit(jax.grad(loss))(params))
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        rng = np.random.default_rng(0)
        step = 1e-6
        for i, ((path, _), gradient) in enumerate(zip(paths, gradients, strict=True)):
            gradient = np.asarray(gradient, np.float64)
            direction = rng.normal(size=gradient.shape)

            def moved(distance, i=i, direction=direction):
                leaves = [x + distance * direction if j == i else x for j, (_, x) in enumerate(paths)]
                return reference_loss(jax.tree.unflatten(structure, leaves))

            slope = (moved(step) - moved(-step)) / (2 * step)
            tolerance = 1e-3 * np.linalg.norm(gradient) + 1e-6
            assert abs(slope - (gradient * direction).sum()) < tolerance, jax.tree_util.keystr(path)

    return check
