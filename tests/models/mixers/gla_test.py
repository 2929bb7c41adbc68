"""Gated linear attention against numpy float64, written from the equations; what it starts with."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import GLA, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = maths.queries_keys_values(w, y)
        decay = (1 / (1 + np.exp(-maths.heads(y @ w["decay_low_rank"]["kernel"], w["decay"])))) ** (1 / 16)
        read = maths.rms_norm(maths.loops(query / np.sqrt(key.shape[-1]), key, value, decay), w["read_norm"])
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
    check_forward(GLA(**SIZES, **settings), expected)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = GLA(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_keys_have_half_the_model_size_and_values_all_of_it():
    assert GLA().state_size(196, 100) == StateSize(*[4 * 128 * 256 // 8] * 2)


def test_a_matched_head_starts_by_keeping_the_context(data, quick_jit):
    model = GLA(**SIZES, token_layout="aligned", matching_heads=1)
    init = quick_jit(lambda *data: nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]["decay"]["bias"])
    decay = (1 / (1 + np.exp(-np.asarray(init(*data), np.float64)))) ** (1 / 16)  # at a zero token
    np.testing.assert_allclose(decay[0], np.exp(-1e-3), rtol=1e-6)
    np.testing.assert_allclose(decay[1:], 0.5 ** (1 / 16), rtol=1e-6)
