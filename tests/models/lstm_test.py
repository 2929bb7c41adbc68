"""The LSTM against a forward pass in numpy float64 that is written from the equations."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM, StateSize, count_parameters

C, H = 4, 6


def reference(params, inputs, labels, *, aligned=False):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    kernel = np.concatenate([p["gates_input"]["kernel"], p["gates_recurrent"]])
    bias = p["gates_input"]["bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    logits = np.zeros((*labels.shape, C))
    for b, (sequence, classes) in enumerate(zip(inputs, labels, strict=True)):
        h, c = np.zeros(H), np.zeros(H)
        past_x, past_y = np.zeros_like(sequence[0]), np.zeros(C)
        for t, (x, y) in enumerate(zip(sequence, classes, strict=True)):
            u = np.concatenate([x, past_x, past_y] if aligned else [x, past_y])
            for layer in ("mlp_0", "mlp_1"):
                u = np.maximum(u @ p[layer]["kernel"] + p[layer]["bias"], 0)
            i, g, f, o = np.split(np.concatenate([u, h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            logits[b, t] = h @ p["logits"]["kernel"] + p["logits"]["bias"]
            past_x, past_y = x, np.eye(C)[y]
    return logits


@pytest.mark.parametrize("layout", ["shifted", "aligned"])
def test_forward_pass_is_that_of_the_equations(data, random_params, layout, quick_jit):
    model = LSTM(num_classes=C, hidden_size=H, token_layout=layout)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    expected = reference(params, *data, aligned=layout == "aligned")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients):
    model = LSTM(num_classes=C, hidden_size=H)
    check_gradients(model, random_params(model, data), data, reference)


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = LSTM(num_classes=C, hidden_size=H, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data), atol=0.05)


def test_sizes_are_the_papers():
    assert count_parameters(LSTM(hidden_size=256), 196, 100) == 646_666
    assert LSTM(hidden_size=256).state_size(196, 100) == StateSize(paper=256, exact=512)


def test_the_mlp_can_have_a_width_of_its_own_which_is_no_part_of_the_state(data, random_params, quick_jit):
    model = LSTM(num_classes=C, hidden_size=H, mlp_size=3)
    params = random_params(model, data)
    assert params["mlp_1"]["kernel"].shape == (3, 3) and params["gates_input"]["kernel"].shape == (3, 4 * H)
    logits = quick_jit(model.apply)({"params": params}, *data)
    np.testing.assert_allclose(logits, reference(params, *data), rtol=1e-4, atol=1e-5)
    assert model.state_size(9, 6) == LSTM(num_classes=C, hidden_size=H).state_size(9, 6)
    with pytest.raises(UsageError, match="mlp_size"):
        LSTM(mlp_size=0)


@pytest.mark.parametrize("mlp_size", [None, 192])
def test_both_halves_of_the_gates_start_with_their_common_fan_in(quick_jit, mlp_size):
    model = LSTM(hidden_size=64, mlp_size=mlp_size)
    data = np.zeros((1, 2, 30), np.float32), np.zeros((1, 2), np.int32)
    params = nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]
    for kernel in (params["gates_input"]["kernel"], params["gates_recurrent"]):
        assert np.std(kernel) == pytest.approx(0.8796 / ((mlp_size or 64) + 64) ** 0.5, rel=0.05)
