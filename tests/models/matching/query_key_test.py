import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import GLA, KDA, MLSTM, DeltaNet, LinearAttention, Transformer

B, T, X, C = 2, 6, 9, 4
BLOCKS = {"num_layers": 3, "num_heads": 2, "key_size": 4, "model_size": 16, "token_layout": "aligned"}


def first_attention(jit, model, inputs, labels):
    """The queries and keys [B, T, heads, key size] of the first block at initialisation, and the parameters."""
    names = ("query", "key", "attention_norm")

    def capture(inputs, labels):
        variables = nn.unbox(model.init(jax.random.key(0), inputs, labels))
        _, captured = model.apply(
            variables, inputs, labels, capture_intermediates=lambda module, _: module.name in names
        )
        block = captured["intermediates"]["block_0"]
        return [block[name]["__call__"][0] for name in names], variables["params"]

    found, params = jit(capture)(inputs, labels)
    return *(np.asarray(x, np.float64) for x in found), params


def queries_and_keys(jit, model):
    """(params, inputs, labels) -> those of the first block, each [B, T, heads, key size], in float64."""
    names = ("query", "key")

    @jit
    def capture(params, inputs, labels):
        _, captured = model.apply(
            {"params": params}, inputs, labels, capture_intermediates=lambda module, _: module.name in names
        )
        return [captured["intermediates"]["block_0"][name]["__call__"][0] for name in names]

    return lambda *arguments: tuple(np.asarray(x, np.float64) for x in capture(*arguments))


def normed_inputs(params, inputs):
    """norm(E x_t | E x_{t-1}) at initialisation, as its two halves [B, T, model size / 2], in float64."""
    kernel = np.asarray(params["embedding"]["kernel"], np.float64)
    present = inputs.astype(np.float64) @ kernel[:X, : kernel.shape[1] // 2]
    past = np.zeros_like(present)
    past[:, 1:] = present[:, :-1]
    token = np.concatenate([present, past], axis=-1)
    mean, deviation = token.mean(-1, keepdims=True), np.sqrt(token.var(-1, keepdims=True) + 1e-5)
    return (present - mean) / deviation, (past - mean) / deviation


def initial(jit, choose):
    """(model, inputs, labels) -> choose(its initial parameters); the others are not computed."""
    return lambda model, *data: jit(lambda *data: choose(nn.unbox(model.init(jax.random.key(0), *data))["params"]))(
        *data
    )


def without_labels(params):
    """The parameters with zeros for what the input layer writes of labels."""
    kernel = params["embedding"]["kernel"].at[2 * X :].set(0)
    return params | {"embedding": params["embedding"] | {"kernel": kernel}}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T))


def test_at_step_0_the_first_head_s_logits_are_scaled_inner_products_of_projected_inputs(data, quick_jit):
    gain, key_size, model_size = 1.5, 20, 32
    model = Transformer(
        num_layers=1,
        num_heads=2,
        key_size=key_size,
        model_size=model_size,
        num_classes=C,
        token_layout="aligned",
        matching_gain=gain,
    )
    params = nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]

    capture = queries_and_keys(quick_jit, model)

    def logits(params):
        query, key = capture(params, *data)
        return np.einsum("btk,bik->bti", query[:, :, 0], key[:, :, 0]) / key_size**0.5

    present, past = normed_inputs(params, data[0])
    expected = gain**2 * np.einsum("btd,bid->bti", present, past) / key_size**0.5
    inputs_alone = without_labels(params) | {"positions": 0 * params["positions"]}
    np.testing.assert_allclose(logits(inputs_alone), expected, rtol=1e-4, atol=1e-5)
    # Positions and labels, which are small, change them little.
    assert np.corrcoef(logits(params)[:, :, 1:].ravel(), expected[:, :, 1:].ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("matched", "key_size"), [(1, 12), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((2, 4), (3, 12)))]
)
def test_delta_net_at_step_0_writes_under_the_previous_input_and_reads_with_the_present_one(
    data, matched, key_size, quick_jit
):
    sizes = {"num_layers": 1, "num_heads": 3, "key_size": key_size, "model_size": 16, "num_classes": C}
    plain, model = (
        DeltaNet(**sizes, token_layout="aligned", matching_heads=heads, chunk_size=T) for heads in (0, matched)
    )
    plain, params = (nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"] for model in (plain, model))
    query, key = queries_and_keys(quick_jit, model)(without_labels(params), *data)
    present, past = normed_inputs(params, data[0])
    size = min(key_size, 8 // matched)
    for head in range(matched):
        dimensions = np.arange(head * size, (head + 1) * size)
        np.testing.assert_allclose(query[:, :, head, :size], present[..., dimensions], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(key[:, :, head, :size], past[..., dimensions], rtol=1e-4, atol=1e-5)
    assert not np.any(key[:, :, :matched, size:])

    block, plain = params["block_0"], plain["block_0"]
    at_zero = np.exp(block["log_decay_rate"]) * np.log1p(np.exp(block["decay_bias"]))  # forgotten at a zero token
    np.testing.assert_allclose(at_zero[:matched], 1e-3, rtol=1e-3)
    for name in ("log_decay_rate", "decay_bias"):
        np.testing.assert_allclose(block[name][matched:], plain[name][matched:], rtol=1e-4)
    for name in ("query", "key"):
        np.testing.assert_allclose(block[name]["kernel"][:, matched:], plain[name]["kernel"][:, matched:], atol=1e-6)
    for name in ("value", "strength", "decay", "gate", "delta_output"):
        np.testing.assert_allclose(block[name]["kernel"], plain[name]["kernel"], atol=1e-6)


@pytest.mark.slow
def test_gradients_reach_every_head_s_queries_and_keys(data, quick_jit):
    model = DeltaNet(num_layers=1, num_heads=3, key_size=8, model_size=16, token_layout="aligned", matching_heads=2)
    params = nn.unbox(quick_jit(model.init)(jax.random.key(0), *data))["params"]
    weights = np.random.default_rng(0).normal(size=(B, T, 10))
    gradients = quick_jit(jax.grad(lambda p: (model.apply({"params": p}, *data) * weights).sum()))(params)["block_0"]
    for name in ("query", "key", "value"):
        assert np.abs(gradients[name]["kernel"]).max(axis=0)[:, :4].min() > 1e-6, name
    for name in ("log_decay_rate", "decay_bias"):
        assert np.abs(gradients[name]).min() > 1e-9, name


@pytest.mark.parametrize(
    ("heads", "matched", "key_size"),
    [
        (1, 1, 12),
        (4, 2, 24),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 1, 32), (4, 1, 8), (4, 4, 4))),
    ],
)
def test_matched_heads_compare_x_t_with_every_previous_input(heads, matched, key_size, quick_jit):
    gain, model_size = 2.0, 32
    model = Transformer(
        num_layers=1,
        num_heads=heads,
        key_size=key_size,
        model_size=model_size,
        num_classes=C,
        token_layout="aligned",
        matching_gain=gain,
        matching_heads=matched,
    )
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T))
    query, key, normed, _ = first_attention(quick_jit, model, inputs, labels)
    half = model_size // 2
    size = min(key_size, half // matched)
    for head in range(matched):
        dimensions = np.arange(head * size, (head + 1) * size)
        logits = np.einsum("btk,bsk->bts", query[:, :, head], key[:, :, head])
        expected = gain**2 * np.einsum("btd,bsd->bts", normed[..., dimensions], normed[..., half + dimensions])
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_input_layer_writes_both_inputs_with_the_same_random_projection(quick_jit):
    model = Transformer(num_layers=1, num_classes=C, token_layout="aligned", matching_gain=1.0)
    inputs, labels = np.zeros((1, 2, 400), np.float32), np.zeros((1, 2), np.int32)
    kernel = initial(quick_jit, lambda params: params["embedding"]["kernel"])(model, inputs, labels)
    present, past = kernel[:400], kernel[400:800]
    np.testing.assert_array_equal(present[:, :128], past[:, 128:])
    assert not np.any(present[:, 128:]) and not np.any(past[:, :128])
    assert np.std(present[:, :128]) == pytest.approx(1 / 400**0.5, rel=0.02)
    assert np.all(np.any(kernel[800:] != 0, axis=0))  # labels are written everywhere


def test_all_other_query_and_key_weights_are_a_tenth_and_the_rest_is_untouched(quick_jit):
    sizes = {"num_heads": 2, "key_size": 8, "model_size": 16, "num_layers": 2, "token_layout": "aligned"}
    inputs, labels = np.zeros((1, 2, 5), np.float32), np.zeros((1, 2), np.int32)
    plain, matched = (
        initial(
            quick_jit,
            lambda params: {
                block: {name: params[block][name] for name in ("query", "key", "value")}
                for block in ("block_0", "block_1")
            },
        )(Transformer(**sizes, matching_gain=gain), inputs, labels)
        for gain in (None, 2.0)
    )
    for name in ("query", "key"):
        np.testing.assert_allclose(
            matched["block_0"][name]["kernel"][:, 1], 0.1 * plain["block_0"][name]["kernel"][:, 1], rtol=1e-5
        )
    for block, name in (("block_0", "value"), ("block_1", "query"), ("block_1", "key")):
        np.testing.assert_allclose(matched[block][name]["kernel"], plain[block][name]["kernel"], rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        Transformer(matching_gain=1.0, **BLOCKS),
        DeltaNet(matching_heads=1, **BLOCKS),
        LinearAttention(matching_heads=1, feature_map="identity", **BLOCKS),
        GLA(matching_heads=1, **BLOCKS),
        MLSTM(matching_heads=1, **BLOCKS),
        KDA(matching_heads=1, **BLOCKS),
    ],
    ids=["transformer", "delta_net", "linear_attention", "gla", "mlstm", "kda"],
)
@pytest.mark.parametrize("matched", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_first_so_many_blocks_start_matched(data, model, matched, quick_jit):
    model = model.clone(matching_layers=matched)
    kernels = initial(
        quick_jit, lambda p: [[p[f"block_{i}"][name]["kernel"] for name in ("query", "key")] for i in range(3)]
    )
    for layer, (query, key) in enumerate(kernels(model, *data)):
        query, key = query[:, 0], key[:, 0]
        is_matched = np.array_equal(query, np.eye(16, 4)) and np.array_equal(key, np.eye(16, 4, k=-8))
        assert is_matched == (layer < matched)


@pytest.mark.slow
def test_matched_heads_prefer_the_input_that_looks_alike(quick_jit):
    model = Transformer(
        num_layers=1, num_heads=1, key_size=64, model_size=128, token_layout="aligned", matching_gain=2.0
    )
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(64, 10, 64)).astype(np.float32), rng.integers(10, size=(64, 10))
    inputs[:, 9] = inputs[:, 4] + 0.3 * rng.normal(size=(64, 64))
    query, key, _, _ = first_attention(quick_jit, model, inputs, labels)
    logits = np.einsum("bk,bsk->bs", query[:, 9, 0], key[:, :, 0])
    assert (logits[:, 1:].argmax(axis=1) == 4).mean() > 0.95  # token 5 holds input 4
