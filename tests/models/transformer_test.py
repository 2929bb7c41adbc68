"""The Transformer against a forward pass in numpy float64 that is written from the equations."""

import functools

import jax
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import StateSize, Transformer, count_parameters

C = 4
SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "max_length": 9, "num_classes": C}


def reference(params, inputs, labels, *, num_layers, aligned, **_):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    inputs = inputs.astype(np.float64)
    batch, length, features = inputs.shape
    one_hot = np.eye(C)[labels]
    tokens = np.zeros((batch, length, features + C + features * aligned))
    tokens[:, :, :features] = inputs
    tokens[:, 1:, -C:] = one_hot[:, :-1]
    if aligned:
        tokens[:, 1:, features : 2 * features] = inputs[:, :-1]

    def norm(x, w):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * w["scale"] + w["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = tokens @ p["embedding"]["kernel"] + p["embedding"]["bias"] + p["positions"][:length]
    for layer in range(num_layers):
        w = p[f"block_{layer}"]
        y = norm(x, w["attention_norm"])
        q, k, v = (
            np.einsum("btd,dhk->bhtk", y, w[n]["kernel"]) + w[n]["bias"][:, None] for n in ("query", "key", "value")
        )
        logits = np.einsum("bhtk,bhsk->bhts", q, k) / np.sqrt(q.shape[-1])
        logits[..., np.triu(np.ones((length, length), bool), k=1)] = -np.inf
        mixed = np.einsum("bhts,bhsk->bthk", scipy.special.softmax(logits, axis=-1), v)
        x = x + np.einsum("bthk,hkd->btd", mixed, w["attention_output"]["kernel"]) + w["attention_output"]["bias"]
        y = gelu(norm(x, w["mlp_norm"]) @ w["mlp_hidden"]["kernel"] + w["mlp_hidden"]["bias"])
        x = x + y @ w["mlp_output"]["kernel"] + w["mlp_output"]["bias"]
    return norm(x, p["final_norm"]) @ p["logits"]["kernel"] + p["logits"]["bias"]


@pytest.mark.parametrize("layout", ["shifted", "aligned"])
def test_forward_pass_is_that_of_the_equations(data, random_params, layout, quick_jit):
    model = Transformer(**SIZES, token_layout=layout)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    expected = reference(params, *data, **SIZES, aligned=layout == "aligned")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_equations(data, random_params, check_gradients):
    model = Transformer(**SIZES)
    expected = functools.partial(reference, **SIZES, aligned=False)
    check_gradients(model, random_params(model, data), data, expected)


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = Transformer(**SIZES, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data, **SIZES, aligned=False), atol=0.15)


@pytest.mark.parametrize(("features", "expected"), [(196, 3_240_714), (784, 3_391_242), (3072, 3_976_970)])
def test_the_default_is_the_papers_size(features, expected):
    assert count_parameters(Transformer(), features, 100) == expected


def test_state_size():
    assert Transformer().state_size(196, 100) == StateSize(paper=32 * 4 * 100, exact=2 * 8 * 32 * 4 * 100)
    assert Transformer(**SIZES).state_size(5, 7) == StateSize(paper=4 * 2 * 7, exact=2 * 3 * 4 * 2 * 7)


def test_initial_weights_have_the_authors_scales(quick_jit):
    model = Transformer(num_heads=4, key_size=16, model_size=128, num_layers=4)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(1, 3, 300)).astype(np.float32), rng.integers(10, size=(1, 3))
    params = nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]
    truncated = 0.8796  # standard deviation of a unit normal cut off at two
    expected = {
        ("embedding", "kernel"): truncated / 310**0.5,
        ("logits", "kernel"): truncated / 128**0.5,
        ("block_2", "query", "kernel"): (0.5 / 128) ** 0.5,
        ("block_2", "key", "kernel"): (0.5 / 128) ** 0.5,
        ("block_2", "value", "kernel"): (0.5 / 128) ** 0.5,
        ("block_2", "attention_output", "kernel"): (0.5 / 64) ** 0.5,
        ("block_2", "mlp_hidden", "kernel"): (0.5 / 128) ** 0.5,
        ("block_2", "mlp_output", "kernel"): (0.5 / 512) ** 0.5,
        ("positions",): truncated * 0.1,
    }
    flat = {tuple(k.key for k in path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    for path, std in expected.items():
        assert flat[path].std() == pytest.approx(std, rel=0.05), path
    for path, value in flat.items():
        if path[-1] in ("bias", "scale"):
            assert (value == (path[-1] == "scale")).all(), path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"token_layout": "reversed"}, "token_layout .* shifted, aligned"),
        ({"num_heads": 0}, "num_heads must be a positive integer"),
        ({"matching_gain": 2.0}, "needs .*aligned"),
        ({"matching_gain": 2.0, "token_layout": "aligned", "matching_heads": 9}, "matching_heads"),
        ({"matching_gain": 2.0, "token_layout": "aligned", "matching_layers": 5}, "matching_layers must be at most"),
        ({"matching_gain": 2.0, "token_layout": "aligned", "matching_layers": 0}, "matching_layers must be a positive"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Transformer(**settings)
