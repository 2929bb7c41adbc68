"""The LSTM against a forward pass in numpy float64 that is written from the equations."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import LSTM, StateSize, count_parameters

B, T, X, C, H = 3, 7, 5, 4, 6


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T)).astype(np.int32)


def reference(params, inputs, labels):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    kernel = np.concatenate([p["gates_input"]["kernel"], p["gates_recurrent"]])
    bias = p["gates_input"]["bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    logits = np.zeros((B, T, C))
    for b in range(B):
        h, c, previous = np.zeros(H), np.zeros(H), np.zeros(C)
        for t in range(T):
            x = np.concatenate([inputs[b, t], previous])
            for layer in ("mlp_0", "mlp_1"):
                x = np.maximum(x @ p[layer]["kernel"] + p[layer]["bias"], 0)
            i, g, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            logits[b, t] = h @ p["logits"]["kernel"] + p["logits"]["bias"]
            previous = np.eye(C)[labels[b, t]]
    return logits


def test_forward_pass_is_that_of_the_equations(data):
    model = LSTM(num_classes=C, hidden_size=H)
    params = nn.unbox(model.init(jax.random.key(0), *data))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape), np.float32), params)
    logits = jax.jit(model.apply)({"params": params}, *data)
    np.testing.assert_allclose(logits, reference(params, *data), rtol=1e-4, atol=1e-5)


def test_sizes_are_the_papers():
    assert count_parameters(LSTM(hidden_size=256), 196, 100) == 646_666
    assert LSTM(hidden_size=256).state_size(100) == StateSize(paper=256, exact=512)


def test_both_halves_of_the_gates_start_with_their_common_fan_in():
    model = LSTM(hidden_size=64)
    data = np.zeros((1, 2, 30), np.float32), np.zeros((1, 2), np.int32)
    params = nn.unbox(model.init(jax.random.key(0), *data))["params"]
    for kernel in (params["gates_input"]["kernel"], params["gates_recurrent"]):
        assert np.std(kernel) == pytest.approx(0.8796 / 128**0.5, rel=0.05)
