"""Attention to a window against numpy float64, written from the equations; its state is that of the window."""

import jax
import numpy as np
import pytest
import scipy.special

from gpicl_flax.errors import UsageError
from gpicl_flax.models import SlidingWindowTransformer, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4}


@pytest.fixture
def expected(reference, maths):
    def make(window):
        def mix(w, y):
            query, key, value = maths.queries_keys_values(w, y)
            logits = np.einsum("bthk,bshk->bhts", maths.rotated(query), maths.rotated(key)) / np.sqrt(key.shape[-1])
            distance = np.subtract.outer(*[np.arange(y.shape[1])] * 2)
            logits[..., (distance < 0) | (distance > window)] = -np.inf
            return np.einsum("bhts,bshv->bthv", scipy.special.softmax(logits, axis=-1), value)

        return reference(mix)

    return make


FURTHER = ((1, {}), (6, {}), (50, {"short_convolution": True}))


@pytest.mark.parametrize(
    ("window", "settings"), [(3, {}), *(pytest.param(*each, marks=pytest.mark.slow) for each in FURTHER)]
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, window, settings):
    check_forward(SlidingWindowTransformer(**SIZES, window=window, **settings), expected(window))


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = SlidingWindowTransformer(**SIZES | {"num_layers": 1}, window=3)
    check_gradients(model, random_params(model, data), data, expected(3))


@pytest.mark.slow
def test_a_full_window_reads_on_without_end(data, random_params, quick_jit):
    model = SlidingWindowTransformer(**SIZES, window=2)
    params, parts = jax.device_put({"params": random_params(model, data)}), model.token_parts(*data)
    expected = quick_jit(model.apply)(params, *data)
    decode = quick_jit(lambda parts, length, state: model.apply(params, parts, length, state, method="decode"))
    _, state = quick_jit(lambda parts: model.apply(params, parts, 2, method="prefill"))([x[:, :2] for x in parts])
    for position in range(2, 7):
        logits, state = decode([x[:, position : position + 1] for x in parts], position, state)
        np.testing.assert_allclose(logits[:, 0], expected[:, position], rtol=1e-4, atol=1e-5)


def test_a_state_without_room_for_a_token_is_refused(data, random_params, quick_jit):
    model = SlidingWindowTransformer(**SIZES | {"num_layers": 1}, window=3)
    params, parts = jax.device_put({"params": random_params(model, data)}), model.token_parts(*data)
    _, state = quick_jit(lambda parts: model.apply(params, parts, 2, method="prefill"))([x[:, :2] for x in parts])
    with pytest.raises(UsageError, match="room for 2 tokens and holds 2"):
        jax.eval_shape(lambda state: model.apply(params, [x[:, 2:3] for x in parts], 2, state, method="decode"), state)


def test_state_size():
    model = SlidingWindowTransformer(**SIZES, window=5)
    assert model.state_size(5, 3) == StateSize(paper=2 * 4 * 3, exact=2 * 2 * 3 * 4 * 3)
    assert model.state_size(5, 100) == StateSize(paper=2 * 4 * 5, exact=2 * 2 * 3 * 4 * 5)
