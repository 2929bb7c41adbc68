"""VSML without symmetries against a forward pass in numpy float64 that is written from the equations."""

import jax
import numpy as np
import pytest

from gpicl_flax.models import StateSize, VSMLWithoutSymmetries, count_parameters

C, K, H, M = 4, 3, 6, 5
SIZES = {"grid_size": K, "hidden_size": H, "message_size": M, "num_classes": C}


def reference(params, inputs, labels, *, micro_ticks=2, aligned=False):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    w = p["layer"]
    gates_kernel = np.concatenate([w["gates_row"], w["gates_column"], w["gates_recurrent"]])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def projected(x, name, size):
        kernel, bias = p[name]["kernel"].reshape(x.shape[-1], -1), p[name]["bias"].reshape(-1)
        return (x @ kernel + bias).reshape(len(x), K, size)

    batch, length = labels.shape
    h, c = np.zeros((batch, K, K, H)), np.zeros((batch, K, K, H))
    f, g = np.zeros((batch, K, M)), np.zeros((batch, K, M))
    past_x, past_y = np.zeros_like(inputs[:, 0]), np.zeros((batch, C))
    logits = np.zeros((batch, length, C))
    for t in range(length):
        x = np.concatenate([inputs[:, t], past_x], axis=-1) if aligned else inputs[:, t]
        u = np.concatenate([g, projected(x, "inputs", 16)], axis=-1)
        v = np.concatenate([f, projected(past_y, "labels", 4)], axis=-1)
        uv = np.concatenate([u[:, :, None].repeat(K, axis=2), v[:, None].repeat(K, axis=1)], axis=-1)  # [B, a, b, _]
        for _ in range(micro_ticks):
            gates = np.concatenate([uv, h], axis=-1) @ gates_kernel + w["gates_bias"]
            i, candidate, forget, o = np.split(gates, 4, axis=-1)
            c = sigmoid(forget + 1) * c + sigmoid(i) * np.tanh(candidate)
            h = sigmoid(o) * np.tanh(c)
        f = (h @ w["forward_kernel"] + w["forward_bias"]).mean(axis=1)
        g = (h @ w["backward_kernel"] + w["backward_bias"]).mean(axis=2)
        logits[:, t] = f.reshape(batch, -1) @ p["logits"]["kernel"] + p["logits"]["bias"]
        past_x, past_y = inputs[:, t], np.eye(C)[labels[:, t]]
    return logits


@pytest.mark.parametrize(("layout", "micro_ticks"), [("shifted", 2), ("aligned", 2), ("shifted", 1)])
def test_forward_pass_is_that_of_the_equations(data, random_params, layout, micro_ticks, quick_jit):
    model = VSMLWithoutSymmetries(**SIZES, token_layout=layout, micro_ticks=micro_ticks)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    expected = reference(params, *data, micro_ticks=micro_ticks, aligned=layout == "aligned")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients):
    model = VSMLWithoutSymmetries(**SIZES)
    check_gradients(model, random_params(model, data), data, reference)


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = VSMLWithoutSymmetries(**SIZES, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data), atol=0.05)


@pytest.mark.parametrize("features", [196, 3072])
@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 24])
def test_parameters_of_the_papers_sizes(k, features):
    projections = (features + 1) * 16 * k + (10 + 1) * 4 * k
    cells = 4 * 64 * ((8 + 16) + (8 + 4) + 64 + 1) + 2 * (64 * 8 + 8)
    assert count_parameters(VSMLWithoutSymmetries(grid_size=k), features, 100) == (
        projections + cells + (8 * k + 1) * 10
    )


@pytest.mark.parametrize("k", [1, 8, 24])
def test_state_size(k):
    expected = StateSize(paper=64 * k**2, exact=2 * 64 * k**2 + 8 * 2 * k)
    assert VSMLWithoutSymmetries(grid_size=k).state_size(196, 100) == expected
