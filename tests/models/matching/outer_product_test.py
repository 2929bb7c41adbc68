"""What a matched outer-product LSTM computes at step 0, from its random projection E alone, in numpy float64."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import OuterProductLSTM

B, T, X, C = 3, 9, 6, 4
SIZE = 29  # d = 12, and one unit to spare
D = 12
GAIN = 2.3 / D**0.5


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T)).astype(np.int32)


def matched_model(**settings):
    return OuterProductLSTM(
        **{"size": SIZE, "num_classes": C, "token_layout": "aligned", "matching_heads": 1} | settings
    )


@pytest.fixture
def start(data, quick_jit):
    """model -> its parameters at step 0."""
    return lambda model: nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]


def previous(x):
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def projected(params, inputs):
    """E x [B, T, d], and whether all of it is above the relus' floor."""
    x = inputs.astype(np.float64) @ np.asarray(params["mlp_0"]["kernel"], np.float64)[:X, :D]
    assert np.abs(x).max() < 3
    return x


@pytest.mark.parametrize(
    ("heads", "matched"), [(2, 1), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 1), (3, 3)))]
)
def test_gates_of_matched_heads(data, start, heads, matched, quick_jit):
    inputs, labels = 0.5 * data[0], data[1]
    model = matched_model(num_heads=heads, matching_heads=matched)
    params = start(model)

    def capture(params):
        return model.apply(
            {"params": params}, inputs, labels, capture_intermediates=lambda module, _: module.name == "gates_input"
        )

    _, captured = quick_jit(capture)(params)
    gates = np.asarray(captured["intermediates"]["gates_input"]["__call__"][0]).reshape(B, T, heads, 8, SIZE)
    present, one_hot = projected(params, inputs), previous(np.eye(C)[labels])
    n = D // matched
    for head in range(matched):
        dimensions = np.arange(head * n, (head + 1) * n)
        expected = np.zeros((B, T, 8, SIZE))
        expected[:, :, [0, 2, 5]] = 2  # K1_i, K1_f, K2_f
        expected[:, :, 3] = -2  # K2_i
        expected[:, :, 1, :n] = GAIN * previous(present)[..., dimensions]
        expected[:, :, 4, :C] = one_hot
        expected[:, :, 6, :n] = GAIN * present[..., dimensions]
        expected[:, :, 6, n:] = gates[:, :, head, 6, n:]  # queries of rows that are empty are free
        np.testing.assert_allclose(gates[:, :, head], expected, atol=2e-5)
    recurrent = params["gates_recurrent"].reshape(-1, heads, 8, SIZE)
    assert not np.any(recurrent[:, :matched]) and np.all(recurrent[:, matched:].any(axis=(0, 2, 3)))


def test_logits_sum_how_much_an_input_looks_like_the_examples_of_each_class(data, start, quick_jit):
    inputs, labels = 0.5 * data[0], data[1]
    model = matched_model()
    params = start(model)
    logits = quick_jit(model.apply)({"params": params}, inputs, labels)
    present = GAIN * projected(params, inputs)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    keep, write = sigmoid(4 * np.tanh(2) ** 2 + 1), sigmoid(-4 * np.tanh(2) ** 2)
    assert keep == pytest.approx(0.991, abs=1e-3) and write == pytest.approx(0.024, abs=1e-3)
    expected = np.zeros((B, T, C))
    for t in range(T):
        for i in range(1, t + 1):
            alike = (np.tanh(present[:, i - 1]) * present[:, t]).sum(axis=-1)
            expected[:, t] += keep ** (t - i) * write * 4 * np.tanh(1) * alike[:, None] * np.eye(C)[labels[:, i - 1]]
    np.testing.assert_allclose(logits, 2 * 0.5 * np.tanh(expected), atol=2e-5)


@pytest.mark.parametrize("length", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_outputs_are_not_saturated_in_a_long_context(length, quick_jit):
    """With inputs of which a quarter is common to all, and a quarter to those of a class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=(16, length))
    common, classes = rng.normal(size=(16, 1, 64)), rng.normal(size=(16, 10, 64))
    own = rng.normal(size=(16, length, 64))
    inputs = 0.5 * common + 0.5 * np.take_along_axis(classes, labels[..., None], axis=1) + 0.5**0.5 * own
    data = inputs.astype(np.float32), labels
    model = OuterProductLSTM(size=64, token_layout="aligned", matching_heads=1)
    logits = quick_jit(lambda *data: model.init_with_output(jax.random.key(0), *data)[0])(*data)[:, -1]
    assert np.median(np.abs(logits)) < np.tanh(1.2) and (np.abs(logits) > np.tanh(2)).mean() < 0.1
    assert (logits.argmax(axis=-1) == labels[:, -1]).mean() > 0.25


def test_off_has_the_same_parameters_and_heads_that_do_not_match_see_no_offset(data, start):
    plain, params = (start(matched_model(num_heads=2, matching_heads=matched)) for matched in (0, 1))
    assert jax.tree.map(np.shape, plain) == jax.tree.map(np.shape, params)
    for name in ("mlp_0", "mlp_1", "gates_input", "logits"):
        assert not np.any(plain[name]["bias"])
    recurrent, kernel = (
        [p.reshape(-1, 2, 8, SIZE)[:, 1] for p in (values["gates_recurrent"], values["gates_input"]["kernel"])]
        for values in (plain, params)
    )
    np.testing.assert_array_equal(recurrent[0], kernel[0])
    np.testing.assert_allclose(kernel[1][: 2 * D + C].sum(axis=0), 0, atol=1e-5)
    weights = recurrent[1][: 2 * D + C]
    np.testing.assert_allclose(kernel[1][: 2 * D + C], weights - weights.mean(axis=0), atol=1e-6)


def test_gradients_reach_every_unit_and_every_matched_gate(data, start, quick_jit):
    model = matched_model()
    params = start(model)
    weights = np.random.default_rng(0).normal(size=(B, T, C))
    gradients = quick_jit(jax.grad(lambda p: (model.apply({"params": p}, *data) * weights).sum()))(params)
    for name in ("mlp_0", "mlp_1"):
        assert np.abs(gradients[name]["bias"][: 2 * D + C]).min() > 1e-6, name
    gates = np.asarray(gradients["gates_input"]["bias"]).reshape(8, SIZE)
    for used in (gates[[0, 2], :D], gates[[3, 5], :C], gates[[1, 4]], gates[6, :D], gates[7, :C]):
        assert np.abs(used).min() > 1e-6
    assert np.abs(gradients["gates_recurrent"]).max() > 1e-6
    assert gradients["key_scale"] != 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"token_layout": "shifted"}, "matching_heads needs OuterProductLSTM.token_layout = 'aligned'"),
        ({"matching_heads": 2}, "matching_heads must be at most num_heads, not 2"),
        ({"matching_heads": -1}, "matching_heads must be a positive integer"),
        ({"size": C + 7}, "size must be at least num_classes .* = 12 .* not 11"),
        ({"num_heads": 4, "matching_heads": 4}, "size must be at least num_classes .* = 36 .* not 29"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        matched_model(**settings)
