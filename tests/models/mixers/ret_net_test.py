"""RetNet against numpy float64, written from the equations."""

import numpy as np
import pytest

from gpicl_flax.models import RetNet, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = maths.queries_keys_values(w, y)
        query, key = maths.rotated(query), maths.rotated(key) / np.sqrt(key.shape[-1])
        decay = np.broadcast_to((1 - np.array([1 / 32, 1 / 64, 1 / 128]))[:, None], key.shape)
        read = maths.rms_norm(maths.loops(query, key, value, decay), w["read_norm"])
        return read * maths.silu(maths.heads(y, w["gate"]))

    return reference(mix)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"form": "recurrent", "value_size": 3},
        {"short_convolution": True},
    ],
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(RetNet(**SIZES, **settings), expected)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = RetNet(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_state_size():
    assert RetNet().state_size(196, 100) == StateSize(*[4 * 8 * 32 * 64] * 2)
