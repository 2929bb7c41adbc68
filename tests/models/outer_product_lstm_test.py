"""The outer-product LSTM against a forward pass in numpy float64 that is written from the equations."""

import jax
import numpy as np
import pytest

from gpicl_flax.models import OuterProductLSTM, StateSize

C, S, M = 4, 3, 2


def reference(params, inputs, labels, *, aligned=False):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    kernel = np.concatenate([p["gates_input"]["kernel"], p["gates_recurrent"]])
    bias = p["gates_input"]["bias"]
    scale = np.log(1 + np.exp(p["key_scale"]))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    logits = np.zeros((*labels.shape, C))
    for b, (sequence, classes) in enumerate(zip(inputs.astype(np.float64), labels, strict=True)):
        hidden, cells = np.zeros(M * S), np.zeros((M, S, S))
        past_x, past_y = np.zeros_like(sequence[0]), np.zeros(C)
        for t, (x, y) in enumerate(zip(sequence, classes, strict=True)):
            u = np.concatenate([x, past_x, past_y] if aligned else [x, past_y])
            for layer in ("mlp_0", "mlp_1"):
                u = np.maximum(u @ p[layer]["kernel"] + p[layer]["bias"], 0)
            u = np.concatenate([u, hidden]) @ kernel + bias
            heads = []
            for head in range(M):
                parts = u[head * 8 * S : (head + 1) * 8 * S]
                k1, k2, q, o = np.split(parts, [3 * S, 6 * S, 7 * S])
                m_i, m_g, m_f = (
                    scale * np.outer(np.tanh(k1[r * S : (r + 1) * S]), np.tanh(k2[r * S : (r + 1) * S]))
                    for r in range(3)
                )
                cells[head] = sigmoid(m_f + 1) * cells[head] + sigmoid(m_i) * m_g
                heads.append(sigmoid(o) * np.tanh(cells[head].T @ q))
            hidden = np.concatenate(heads)
            logits[b, t] = hidden @ p["logits"]["kernel"] + p["logits"]["bias"]
            past_x, past_y = x, np.eye(C)[y]
    return logits


@pytest.mark.parametrize("layout", ["shifted", "aligned"])
def test_forward_pass_is_that_of_the_equations(data, random_params, layout, quick_jit):
    model = OuterProductLSTM(num_classes=C, size=S, num_heads=M, token_layout=layout)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    np.testing.assert_allclose(logits, reference(params, *data, aligned=layout == "aligned"), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients):
    model = OuterProductLSTM(num_classes=C, size=S, num_heads=M)
    check_gradients(model, random_params(model, data), data, reference)


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = OuterProductLSTM(num_classes=C, size=S, num_heads=M, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data), atol=0.05)


def test_the_key_scale_starts_at_zero_and_is_one_for_all_heads(data, quick_jit):
    model = OuterProductLSTM(num_classes=C, size=S, num_heads=M)
    key_scale = quick_jit(model.init)(jax.random.key(0), *data)["params"]["key_scale"]
    assert key_scale.shape == () and key_scale == 0


@pytest.mark.parametrize(
    ("size", "heads", "expected"), [(32, 1, StateSize(1024, 1056)), (16, 4, StateSize(1024, 1088)), (3, 2, (18, 24))]
)
def test_state_size(size, heads, expected):
    assert OuterProductLSTM(size=size, num_heads=heads).state_size(196, 100) == expected
