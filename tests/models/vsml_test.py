"""VSML against a forward pass in numpy float64 that is written from the equations; its symmetries."""

import functools

import jax
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import VSML, StateSize, count_parameters

C = 4
SIZES = {"layer_size": 3, "hidden_size": 6, "message_size": 4, "num_classes": C}
ALIGNED = {"token_layout": "aligned"}


def new_messages(w, u, v, hidden, cell, micro_ticks):
    """One layer, one example, B sequences: u [B, N, _], v [B, C, _]; hidden and cell [B, N, C, H] are overwritten."""
    kernel = np.concatenate([w["gates_row"], w["gates_column"], w["gates_recurrent"]])
    rows, columns = u.shape[1], v.shape[1]
    uv = np.concatenate([u[:, :, None].repeat(columns, axis=2), v[:, None].repeat(rows, axis=1)], axis=-1)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for _ in range(micro_ticks):
        gates = np.concatenate([uv, hidden], axis=-1) @ kernel + w["gates_bias"]
        i, g, f, o = np.split(gates, 4, axis=-1)
        cell[:] = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
        hidden[:] = sigmoid(o) * np.tanh(cell)
    forward = (hidden @ w["forward_kernel"] + w["forward_bias"]).mean(axis=1)
    backward = (hidden @ w["backward_kernel"] + w["backward_bias"]).mean(axis=2)
    return forward, backward


def reference(
    params, inputs, labels, *, num_layers=1, layer_size=3, hidden_size=6, message_size=4, micro_ticks=2, aligned=False
):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    batch, length, features = inputs.shape
    widths = [features, *[layer_size] * (num_layers - 1), C]
    hidden = [np.zeros((batch, n, m, hidden_size)) for n, m in zip(widths[:-1], widths[1:], strict=True)]
    cell = [np.zeros_like(h) for h in hidden]
    f = [np.zeros((batch, m, message_size)) for m in widths[1:]]
    g = [np.zeros((batch, n, message_size)) for n in widths[:-1]]
    row_size, column_size = (message_size, message_size) if num_layers > 1 else (1 + aligned, 1)
    logits = np.zeros((batch, length, C))
    for t in range(length):
        x, z = np.zeros((batch, features, row_size)), np.zeros((batch, C, column_size))
        x[:, :, 0] = inputs[:, t]
        if t > 0:
            z[:, :, 0] = np.eye(C)[labels[:, t - 1]]
            if aligned:
                x[:, :, 1] = inputs[:, t - 1]
        for layer in range(num_layers):
            from_below = x if layer == 0 else f[layer - 1]  # of this example
            from_above = z if layer == num_layers - 1 else g[layer + 1]  # of the example before
            u, v = np.concatenate([g[layer], from_below], axis=-1), np.concatenate([f[layer], from_above], axis=-1)
            f[layer], g[layer] = new_messages(p[f"layer_{layer}"], u, v, hidden[layer], cell[layer], micro_ticks)
        logits[:, t] = f[-1][:, :, 0]
    return logits


@pytest.mark.parametrize(
    "settings",
    [{}, ALIGNED, {"num_layers": 2}, {"num_layers": 3, **ALIGNED}, {"num_layers": 3}, {"micro_ticks": 3}],
    ids=str,
)
def test_forward_pass_is_that_of_the_equations(data, random_params, settings, quick_jit):
    model = VSML(**SIZES, **settings)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    settings = settings | {"aligned": settings.get("token_layout") == "aligned"}
    settings.pop("token_layout", None)
    np.testing.assert_allclose(logits, reference(params, *data, **settings), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_layers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, num_layers):
    model = VSML(**SIZES, num_layers=num_layers)
    check_gradients(model, random_params(model, data), data, functools.partial(reference, num_layers=num_layers))


@pytest.mark.parametrize("num_layers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, num_layers, quick_jit):
    model = VSML(**SIZES, num_layers=num_layers, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data, num_layers=num_layers), atol=0.05)


@pytest.mark.parametrize("num_layers", [2, *(pytest.param(layers, marks=pytest.mark.slow) for layers in (1, 3))])
def test_permuted_inputs_do_not_change_predictions_and_permuted_classes_permute_them(
    data, random_params, num_layers, quick_jit
):
    model = VSML(**SIZES, num_layers=num_layers)
    inputs, labels = data
    params = random_params(model, data)
    apply = quick_jit(lambda inputs, labels: model.apply({"params": params}, inputs, labels))
    logits = np.asarray(apply(inputs, labels))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)

    order = np.array([3, 0, 4, 2, 1])
    close(apply(inputs[..., order], labels), logits)
    renamed = np.array([2, 0, 3, 1])  # class c is now called renamed[c]
    close(apply(inputs, renamed[labels])[..., renamed], logits)

    other = apply(inputs[:, ::-1], labels[:, ::-1])  # what is read does matter
    assert np.abs(other - logits).max() > 0.01
    assert np.ptp(logits, axis=-1).max() > 0.01


@pytest.mark.parametrize(("features", "classes"), [(1, 1), (196, 10), (3072, 10), (50, 100)])
def test_one_layer_has_the_papers_number_of_parameters_for_any_data(features, classes):
    assert count_parameters(VSML(num_classes=classes), features, 100) == 2_512


@pytest.mark.parametrize("num_layers", [2, 4])
def test_each_of_several_layers_has_parameters_of_its_own(num_layers):
    of_a_layer = 64 * (16 + 16 + 16 + 1) + 2 * (16 * 8 + 8)
    assert count_parameters(VSML(num_layers=num_layers), 196, 100) == num_layers * of_a_layer


def test_predictions_do_not_depend_on_the_number_of_inner_rows(data, random_params, quick_jit):
    one, five = (VSML(**SIZES | {"layer_size": size}, num_layers=3) for size in (1, 5))
    params = {"params": random_params(one, data)}
    np.testing.assert_allclose(
        quick_jit(one.apply)(params, *data), quick_jit(five.apply)(params, *data), rtol=1e-4, atol=1e-5
    )


def test_state_size():
    assert VSML().state_size(196, 100) == StateSize(paper=31_360, exact=64_368)
    cells = 196 * 12 + 12 * 12 + 12 * 10
    messages = (196 + 12) + (12 + 12) + (12 + 10)
    model = VSML(num_layers=3, layer_size=12, hidden_size=5, message_size=7)
    assert model.state_size(196, 100) == StateSize(paper=5 * cells, exact=2 * 5 * cells + 7 * messages)


def test_messages_that_cannot_hold_a_rows_inputs_are_refused():
    with pytest.raises(UsageError, match="message_size = 1 .* 2 inputs of a row"):
        VSML(message_size=1, token_layout="aligned", num_layers=2)
    VSML(message_size=1, num_layers=2)
    VSML(message_size=1, token_layout="aligned")


def test_numbers_that_are_not_positive_are_refused():
    with pytest.raises(UsageError, match="VSML.micro_ticks must be a positive integer"):
        VSML(micro_ticks=0)
