"""DeltaNet against a forward pass in numpy float64 that is written from the equations; its two forms are one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import DeltaNet, StateSize
from gpicl_flax.models.kernels import matrix_state

C = 4
SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": C, "chunk_size": 3}


def delta_rule_loops(query, key, value, log_decay, strength):
    """S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T, read as S_t^T q_t."""
    batch, length, heads, size = key.shape
    outputs = np.zeros(value.shape)
    for b in range(batch):
        for h in range(heads):
            state = np.zeros((size, value.shape[-1]))
            for t in range(length):
                k, strong = key[b, t, h], strength[b, t, h]
                transition = np.exp(log_decay[b, t, h]) * (np.eye(size) - strong * np.outer(k, k))
                state = transition @ state + strong * np.outer(k, value[b, t, h])
                outputs[b, t, h] = state.T @ query[b, t, h]
    return outputs


def reference(params, inputs, labels, *, gated=True, aligned=False):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    inputs = inputs.astype(np.float64)
    past_x, past_y = np.zeros_like(inputs), np.zeros((*labels.shape, C))
    past_x[:, 1:], past_y[:, 1:] = inputs[:, :-1], np.eye(C)[labels[:, :-1]]
    tokens = np.concatenate([inputs, past_x, past_y] if aligned else [inputs, past_y], axis=-1)

    def norm(x, w):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * w["scale"] + w["bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = tokens @ p["embedding"]["kernel"] + p["embedding"]["bias"]
    for layer in range(sum(name.startswith("block_") for name in p)):
        w = p[f"block_{layer}"]
        y = norm(x, w["delta_norm"])
        query, key, value, gate = (
            np.einsum("btd,dhk->bthk", y, w[name]["kernel"]) + w[name]["bias"]
            for name in ("query", "key", "value", "gate")
        )
        query, key = (z / np.sqrt((z**2).sum(-1, keepdims=True) + 1e-6) for z in (query, key))
        strength = sigmoid(y @ w["strength"]["kernel"] + w["strength"]["bias"])
        log_decay = np.zeros_like(strength)
        if gated:
            step = np.log(1 + np.exp(y @ w["decay"]["kernel"] + w["decay_bias"]))
            log_decay = -np.exp(w["log_decay_rate"]) * step
        read = delta_rule_loops(query, key, value, log_decay, strength)
        read = read / np.sqrt((read**2).mean(-1, keepdims=True) + 1e-6) * w["read_norm"]["scale"]
        read = read * gate * sigmoid(gate)
        x = x + np.einsum("bthk,hkd->btd", read, w["delta_output"]["kernel"]) + w["delta_output"]["bias"]
        y = gelu(norm(x, w["mlp_norm"]) @ w["mlp_hidden"]["kernel"] + w["mlp_hidden"]["bias"])
        x = x + y @ w["mlp_output"]["kernel"] + w["mlp_output"]["bias"]
    return norm(x, p["final_norm"]) @ p["logits"]["kernel"] + p["logits"]["bias"]


@pytest.mark.parametrize(
    ("form", "gated", "layout"),
    [
        ("chunked", True, "shifted"),
        *(pytest.param(*each, "aligned", marks=pytest.mark.slow) for each in (("chunked", False), ("recurrent", True))),
    ],
)
def test_forward_pass_is_that_of_the_equations(data, random_params, form, gated, layout, quick_jit):
    model = DeltaNet(**SIZES, form=form, gated=gated, token_layout=layout)
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    expected = reference(params, *data, gated=gated, aligned=layout == "aligned")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients):
    model = DeltaNet(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, reference)


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = DeltaNet(**SIZES, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data), atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("gated", "chunk_size"), [(True, 3), pytest.param(False, 7, marks=pytest.mark.slow)])
def test_both_forms_of_the_model_are_the_same_function(data, random_params, gated, chunk_size, quick_jit):
    sizes = SIZES | {"num_layers": 1, "chunk_size": chunk_size, "gated": gated}
    params = random_params(DeltaNet(**sizes), data)

    def logits_and_gradients(form):
        def loss(params):
            logits = DeltaNet(**sizes, form=form).apply({"params": params}, *data)
            return (logits**2).sum(), logits

        gradients, logits = quick_jit(jax.grad(loss, has_aux=True))(params)
        return logits, gradients

    recurrent, chunked = logits_and_gradients("recurrent"), logits_and_gradients("chunked")
    for x, y in zip(jax.tree.leaves(chunked), jax.tree.leaves(recurrent), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(y).max())


DECAYS = {
    "none": lambda rng, shape: np.zeros(shape),
    "mild": lambda rng, shape: -rng.uniform(0, 0.3, shape),
    "strong": lambda rng, shape: -rng.uniform(5, 300, shape),  # sums of them leave float32's range
    "some strong": lambda rng, shape: -rng.choice([0.0, 0.1, 300.0], shape),
}


@pytest.fixture(params=DECAYS)
def arguments(request):
    """Of the delta rule, for 2 sequences of 12 positions, 2 heads, keys of 4 and values of 3."""
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 2, 12, 2, 4))
    key /= np.linalg.norm(key, axis=-1, keepdims=True)
    value = rng.normal(size=(2, 12, 2, 3))
    log_decay, strength = DECAYS[request.param](rng, (2, 12, 2)), rng.uniform(0, 1, (2, 12, 2))
    return tuple(x.astype(np.float32) for x in (query, key, value, log_decay, strength))


def delta_rule(query, key, value, log_decay, strength):
    """The arguments of `matrix_state` for the delta rule."""
    recall = (strength * jnp.exp(log_decay))[..., None] * key
    return query, key, strength[..., None] * value, log_decay, (None, recall)


FORMS = {"recurrent": lambda *x: matrix_state.recurrent(*delta_rule(*x))[0]} | {
    f"chunks of {n}": lambda *x, n=n: matrix_state.chunked(*delta_rule(*x), chunk_size=n)[0] for n in (1, 4, 5, 16)
}


@pytest.mark.parametrize("form", FORMS)
def test_delta_rule_is_that_of_the_equations(arguments, form, quick_jit):
    output = quick_jit(FORMS[form])(*arguments)
    expected = delta_rule_loops(*(x.astype(np.float64) for x in arguments))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_the_delta_rule_are_the_same_in_chunks(arguments, quick_jit):
    weights = np.random.default_rng(1).normal(size=arguments[2].shape)

    def gradients(form):
        return quick_jit(jax.grad(lambda x: (FORMS[form](*x) * weights).sum()))(arguments)

    for x, y in zip(gradients("chunks of 5"), gradients("recurrent"), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_delta_rule_is_causal(form, quick_jit):
    rng = np.random.default_rng(0)
    arguments = [rng.uniform(0.1, 0.5, size).astype(np.float32) for size in 3 * [(1, 12, 1, 4)] + 2 * [(1, 12, 1)]]
    arguments[3] *= -1
    apply = quick_jit(FORMS[form])
    before = apply(*arguments)
    for position in (0, 4, 9, 11):
        changed = [x.copy() for x in arguments]
        for x in changed:
            x[:, position] *= 0.5
        after = apply(*changed)
        np.testing.assert_allclose(after[:, :position], before[:, :position], rtol=0, atol=1e-7)
        assert (np.abs(after - before)[:, position:].max(axis=-1) > 1e-5).all()


def test_state_size():
    assert DeltaNet().state_size(196, 100) == StateSize(paper=4 * 8 * 32 * 32, exact=4 * 8 * 32 * 32)
    assert DeltaNet(**SIZES).state_size(5, 7) == StateSize(paper=2 * 3 * 4 * 4, exact=2 * 3 * 4 * 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "x"}, "DeltaNet.form must be one of chunked, recurrent, not 'x'"),
        ({"chunk_size": 0}, "DeltaNet.chunk_size must be a positive integer"),
        ({"gated": 1}, "DeltaNet.gated must be of type bool"),
        ({"token_layout": "reversed"}, "DeltaNet.token_layout"),
        ({"matching_heads": 1}, "DeltaNet.matching_heads needs DeltaNet.token_layout = 'aligned'"),
        ({"matching_heads": -1, "token_layout": "aligned"}, "DeltaNet.matching_heads must be a positive integer"),
        ({"matching_heads": 9, "token_layout": "aligned"}, "DeltaNet.matching_heads must be at most"),
        ({"matching_heads": 1, "matching_layers": 5, "token_layout": "aligned"}, "matching_layers must be at most"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        DeltaNet(**settings)
