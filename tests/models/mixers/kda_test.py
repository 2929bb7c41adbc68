"""Kimi Delta Attention against numpy float64, written from the equations; what it starts with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import KDA, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = (maths.silu(x) for x in maths.queries_keys_values(w, y))
        query, key = maths.unit_length(query) / np.sqrt(query.shape[-1]), maths.unit_length(key)
        beta = maths.sigmoid(y @ w["strength"]["kernel"] + w["strength"]["bias"])  # [B, T, H]
        rate = np.exp(w["log_decay_rate"])
        decay = np.exp(-rate[:, None] * maths.softplus(maths.heads(y @ w["decay_low_rank"]["kernel"], w["decay"])))
        read = np.zeros(value.shape)
        for b, h in np.ndindex(len(y), len(rate)):
            state = np.zeros((key.shape[-1], value.shape[-1]))
            for t in range(y.shape[1]):
                k, strength = key[b, t, h], beta[b, t, h]
                transition = (np.eye(len(k)) - strength * np.outer(k, k)) @ np.diag(decay[b, t, h])
                state = transition @ state + strength * np.outer(k, value[b, t, h])
                read[b, t, h] = state.T @ query[b, t, h]
        gate = maths.heads(y @ w["gate_low_rank"]["kernel"], w["gate"])
        return maths.rms_norm(read, w["read_norm"]) * maths.sigmoid(gate)

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
    check_forward(KDA(**SIZES, **settings), expected)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = KDA(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_state_size():
    assert KDA().state_size(196, 100) == StateSize(*[4 * 8 * 32 * 32] * 2)
    assert KDA(short_convolution=True).state_size(196, 100).exact == 4 * (8 * 32 * 32 + 3 * 3 * 8 * 32)


def test_a_matched_head_starts_by_keeping_the_context(data, quick_jit):
    model = KDA(**SIZES, token_layout="aligned", matching_heads=1)

    def init(*data):
        block = nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]
        return jnp.exp(block["log_decay_rate"]), block["decay"]["bias"]

    rate, bias = (np.asarray(x, np.float64) for x in quick_jit(init)(*data))
    forgotten = rate[:, None] * np.log1p(np.exp(bias))  # at a zero token
    np.testing.assert_allclose(forgotten[0], 1e-3, rtol=1e-6)
    assert not bias[1:].any() and (rate[1:] >= 1).all() and (rate[1:] <= 16).all()
