"""Mamba-2 against numpy float64, written from the equations; its state and its own block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import Mamba2, StateSize, count_parameters

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = (maths.silu(x) for x in maths.queries_keys_values(w, y))
        step = maths.softplus(y @ w["step"]["kernel"] + w["step"]["bias"])  # [B, T, H]
        rate = np.exp(w["log_decay_rate"])
        read = np.zeros(value.shape)
        for b, h in np.ndindex(len(y), len(rate)):
            state = np.zeros((key.shape[-1], value.shape[-1]))
            for t, dt in enumerate(step[b, :, h]):
                state = np.exp(-rate[h] * dt) * state + dt * np.outer(key[b, t, 0], value[b, t, h])
                read[b, t, h] = state.T @ query[b, t, 0] + w["skip"][h] * value[b, t, h]
        flat = (read * maths.silu(maths.heads(y, w["gate"]))).reshape(*y.shape[:2], -1)
        return maths.rms_norm(flat, {"scale": w["read_norm"]["scale"].ravel()}).reshape(read.shape)

    return reference(mix)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"form": "recurrent", "value_size": 3, "short_convolution": False},
        {"own_block": True},
    ],
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(Mamba2(**SIZES, **settings), expected)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = Mamba2(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_heads_share_the_convolutions_of_keys_and_queries():
    convolution = 3 * (32 + 32 + 8 * 64)
    paper = 4 * 8 * 32 * 64
    assert Mamba2().state_size(196, 100) == StateSize(paper=paper, exact=paper + 4 * convolution)
    assert Mamba2(short_convolution=False).state_size(196, 100) == StateSize(paper=paper, exact=paper)


def test_its_own_block_has_no_mlp():
    mlp = 2 * 256 + 2 * 256 * 4 * 256 + 4 * 256 + 256
    plain, own = (count_parameters(Mamba2(own_block=own), 196, 100) for own in (False, True))
    assert plain - own == 4 * mlp


def test_steps_and_rates_start_in_the_ranges_of_the_paper(data, quick_jit):
    model = Mamba2(**SIZES | {"num_heads": 64, "num_layers": 1})

    def init(*data):
        block = nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]
        return jnp.exp(block["log_decay_rate"]), nn.softplus(block["step"]["bias"]), block["skip"]

    rate, step, skip = quick_jit(init)(*data)
    assert 1 <= rate.min() < 3 < 14 < rate.max() <= 16
    assert 9.9e-4 < step.min() < 2e-3 and 0.05 < step.max() < 0.101 and 0.005 < np.median(step) < 0.02
    np.testing.assert_array_equal(skip, np.ones(64))
