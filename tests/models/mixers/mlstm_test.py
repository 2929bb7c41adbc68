"""The mLSTM against numpy float64, written from the equations, for gates of any size; what it starts with."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import MLSTM, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


def cell(query, key, value, log_input, log_forget):
    """Goes over the positions of one head: h [T, V]; key is scaled already."""
    memory, normaliser, m = np.zeros((key.shape[-1], value.shape[-1])), np.zeros(key.shape[-1]), 0.0
    read = []
    for q, k, v, i, f in zip(query, key, value, log_input, log_forget, strict=True):
        new = max(f + m, i)
        forget, write, m = np.exp(f + m - new), np.exp(i - new), new
        memory = forget * memory + write * np.outer(k, v)
        normaliser = forget * normaliser + write * k
        read.append(memory.T @ q / max(abs(normaliser @ q), np.exp(-m)))
    return np.array(read)


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = maths.queries_keys_values(w, y)
        key = key / np.sqrt(key.shape[-1])
        log_input = y @ w["input_gate"]["kernel"] + w["input_gate"]["bias"]
        log_forget = -maths.softplus(-(y @ w["forget_gate"]["kernel"] + w["forget_gate"]["bias"]))
        read = np.zeros(value.shape)
        for b, h in np.ndindex(len(y), key.shape[2]):
            head = b, slice(None), h
            read[head] = cell(query[head], key[head], value[head], log_input[head], log_forget[head])
        return maths.rms_norm(read, w["read_norm"]) * maths.sigmoid(maths.heads(y, w["gate"]))

    return reference(mix)


@pytest.mark.parametrize("settings", [{}, {"form": "recurrent", "value_size": 3}, {"short_convolution": True}])
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(MLSTM(**SIZES, **settings), expected)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = MLSTM(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_state_size_counts_normalisers_and_stabilisers():
    matrix = 4 * 8 * 32 * 32
    assert MLSTM().state_size(196, 100) == StateSize(paper=matrix, exact=matrix + 4 * 8 * (32 + 1))


def test_gates_start_as_in_the_paper_and_a_matched_head_keeps_the_context(data, quick_jit):
    model = MLSTM(**SIZES | {"num_heads": 4}, token_layout="aligned", matching_heads=1)
    block = nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]["block_0"]
    forget = 1 / (1 + np.exp(-np.asarray(block["forget_gate"]["bias"], np.float64)))
    np.testing.assert_allclose(forget[0], np.exp(-1e-3), rtol=1e-6)
    np.testing.assert_allclose(block["forget_gate"]["bias"][1:], [4, 5, 6], rtol=1e-6)
    for name in ("input_gate", "forget_gate"):
        assert not np.any(block[name]["kernel"])
    assert 0.01 < np.abs(block["input_gate"]["bias"]).max() < 0.4
