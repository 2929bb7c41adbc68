"""The short convolution against numpy, and as a switch of the models that share the backbone."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import DeltaNet, Transformer, passes
from gpicl_flax.models.short_convolution import ShortConvolution

B, T, H, K = 2, 6, 3, 4
SIZES = {"num_layers": 1, "num_heads": 2, "key_size": 4, "model_size": 12, "num_classes": 4}
MODELS = {"transformer": Transformer(**SIZES), "delta_net": DeltaNet(**SIZES, chunk_size=3)}


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, H, K)).astype(np.float32), rng.normal(size=(B, T, H, K)).astype(np.float32)


def test_it_is_numpy_s_convolution_of_each_channel(drawn):
    kernel, x = drawn
    y, _ = ShortConvolution().apply({"params": {"kernel": kernel}}, x, passes.Whole())
    for b, h, k in np.ndindex(B, H, K):
        expected = np.convolve(x[b, :, h, k].astype(np.float64), kernel[::-1, h, k])[:T]
        np.testing.assert_allclose(y[b, :, h, k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 3, T])
def test_the_state_is_the_last_three_inputs_that_count(drawn, length):
    kernel, x = drawn
    _, state = ShortConvolution().apply({"params": {"kernel": kernel}}, x, passes.Prefill(length))
    np.testing.assert_array_equal(state, np.pad(x, ((0, 0), (3, 0), (0, 0), (0, 0)))[:, length : length + 3])


@pytest.mark.parametrize("name", MODELS)
def test_with_it_a_prefill_and_single_steps_are_one_prefill_of_all(name, random_params, quick_jit):
    model, rng = MODELS[name].clone(short_convolution=True), np.random.default_rng(0)
    data = rng.normal(size=(B, T, 5)).astype(np.float32), rng.integers(4, size=(B, T))
    params, parts = jax.device_put({"params": random_params(model, data)}), model.token_parts(*data)
    prefill = quick_jit(lambda length: model.apply(params, parts, length, method="prefill"))
    decode = quick_jit(lambda parts, length, state: model.apply(params, parts, length, state, method="decode"))
    answer_from = quick_jit(lambda state, length: model.apply(params, state, parts, length, method="answer_from"))
    expected, expected_state = prefill(T)
    for length in (0, 1, 3, T - 1):
        _, state = prefill(length)
        np.testing.assert_allclose(answer_from(state, length)[:, length], expected[:, length], rtol=1e-4, atol=1e-5)
        for position in range(length, T):
            logits, state = decode([x[:, position : position + 1] for x in parts], position, state)
            np.testing.assert_allclose(logits[:, 0], expected[:, position], rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected_state)


@pytest.mark.parametrize("name", MODELS)
def test_without_the_switch_it_is_not_there(name, random_params, data):
    plain, switched = MODELS[name], MODELS[name].clone(short_convolution=True)
    blocks = [set(random_params(model, data)["block_0"]) for model in (plain, switched)]
    assert blocks[1] - blocks[0] == {"query_convolution", "key_convolution", "value_convolution"}
    assert switched.state_size(5, 7).exact - plain.state_size(5, 7).exact == 3 * 3 * 2 * 4
    assert switched.state_size(5, 7).paper == plain.state_size(5, 7).paper


def test_matched_heads_start_as_without_it(data, quick_jit):
    model = DeltaNet(**SIZES | {"model_size": 16}, token_layout="aligned", matching_heads=1, short_convolution=True)
    names = "query_convolution", "key_convolution", "value_convolution"

    def init(*data):
        block = nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]
        return [block[name]["kernel"] for name in names]

    for kernel in quick_jit(init)(*data):
        np.testing.assert_array_equal(kernel[:, 0], np.eye(4)[3][:, None] * np.ones(4))
        assert 0.1 < np.abs(kernel[:, 1]).mean() < 0.4 and np.abs(kernel[:, 1]).max() <= 0.5
