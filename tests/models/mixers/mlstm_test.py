"""The mLSTM against numpy float64, written from the equations, for gates of any size; what it starts with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import MLSTM, StateSize
from gpicl_flax.models.passes import Prefill, Queries, Step, Whole

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


def cell(query, key, value, log_input, log_forget):
    """Goes over the positions of one head: h [T, V]; key is scaled already."""
    memory, normaliser, m = np.zeros((key.shape[-1], value.shape[-1])), np.zeros(key.shape[-1]), 0.0
    read = []
    for q, k, v, i, f in zip(query, key, value, log_input, log_forget, strict=True):
        new = max(f + m, i)
        forget, write, m = np.exp(f + m - new), np.exp(i - new), new
        memory = forget * memory + write * np.outer(k, v)
        normaliser = forget * normaliser + write * k
        read.append(memory.T @ q / max(abs(normaliser @ q), np.exp(-m)))
    return np.array(read)


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        query, key, value = maths.queries_keys_values(w, y)
        key = key / np.sqrt(key.shape[-1])
        log_input = y @ w["input_gate"]["kernel"] + w["input_gate"]["bias"]
        log_forget = -maths.softplus(-(y @ w["forget_gate"]["kernel"] + w["forget_gate"]["bias"]))
        read = np.zeros(value.shape)
        for b, h in np.ndindex(len(y), key.shape[2]):
            head = b, slice(None), h
            read[head] = cell(query[head], key[head], value[head], log_input[head], log_forget[head])
        return maths.rms_norm(read, w["read_norm"]) * maths.sigmoid(maths.heads(y, w["gate"]))

    return reference(mix)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"form": "recurrent", "value_size": 3},
        {"short_convolution": True},
    ],
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(MLSTM(**SIZES, **settings), expected)


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = MLSTM(**SIZES | {"num_layers": 1})
    check_gradients(model, random_params(model, data), data, expected)


def test_state_size_counts_normalisers_and_stabilisers():
    matrix = 4 * 8 * 32 * 32
    assert MLSTM().state_size(196, 100) == StateSize(paper=matrix, exact=matrix + 4 * 8 * (32 + 1))


def test_gates_start_as_in_the_paper_and_a_matched_head_keeps_the_context(data, quick_jit):
    model = MLSTM(**SIZES | {"num_heads": 4}, token_layout="aligned", matching_heads=1)
    names = "input_gate", "forget_gate"

    def init(*data):
        block = nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]
        return [block[name] for name in names]

    input_gate, forget_gate = quick_jit(init)(*data)
    forget = 1 / (1 + np.exp(-np.asarray(forget_gate["bias"], np.float64)))
    np.testing.assert_allclose(forget[0], np.exp(-1e-3), rtol=1e-6)
    np.testing.assert_allclose(forget_gate["bias"][1:], [4, 5, 6], rtol=1e-6)
    assert not np.any(input_gate["kernel"]) and not np.any(forget_gate["kernel"])
    assert 0.01 < np.abs(input_gate["bias"]).max() < 0.4


def step_by_step(query, key, value, log_input, log_forget):
    """The equations in jax, whose derivatives are exact; arrays [B, T, H, ...]."""

    def step(carry, position):
        memory, normaliser, m = carry
        q, k, v, i, f = position
        new = jnp.maximum(f + m, i)
        forget, write = jnp.exp(f + m - new)[..., None], jnp.exp(i - new)[..., None] * k
        memory = forget[..., None] * memory + write[..., None] * v[..., None, :]
        normaliser = forget * normaliser + write
        divisor = jnp.maximum(jnp.abs((normaliser * q).sum(-1)), jnp.exp(-new))
        return (memory, normaliser, new), jnp.einsum("bhkv,bhk->bhv", memory, q) / divisor[..., None]

    start = jnp.zeros((*key[:, 0].shape, value.shape[-1])), jnp.zeros_like(key[:, 0]), jnp.zeros_like(log_input[:, 0])
    inputs = [x.swapaxes(0, 1) for x in (query, key, value, log_input, log_forget)]
    return jax.lax.scan(step, start, tuple(inputs))[1].swapaxes(0, 1)


# (i, ln f) of positions; `uniform` and `normal` draw an array.
GATES = {
    "that keep all": lambda normal, uniform: (5 * normal, 0 * normal),
    "that forget slowly": lambda normal, uniform: (normal, 0 * normal - 1e-3),
    "that forget slowly and write much": lambda normal, uniform: (0 * normal + 50, 0 * normal - 1e-3),
    "that forget at all speeds": lambda normal, uniform: (20 * normal, -(40 ** (4 * uniform - 3))),
    "that forget at once": lambda normal, uniform: (60 * normal, 0 * normal - 40),
    "that write more and more": lambda normal, uniform: (
        np.linspace(-70, 200, len(normal[0]))[:, None] + normal,
        -uniform,
    ),
    "that write next to nothing": lambda normal, uniform: (normal - 300, -uniform),
}


@pytest.mark.parametrize(
    ("form", "length"),
    [
        ("chunked", 37),
        pytest.param("recurrent", 37, marks=pytest.mark.slow),
        pytest.param("chunked", 2048, marks=pytest.mark.slow),
        pytest.param("recurrent", 2048, marks=pytest.mark.slow),
    ],
)
def test_it_is_stable_for_gates_of_any_size(form, length):
    heads, size = 2, 4
    mixer = MLSTM(num_heads=heads, key_size=size, form=form).mixer(0)
    rng = np.random.default_rng(0)
    # All positive, since a normaliser that cancels amplifies rounding in any form.
    arrays = [np.abs(rng.normal(size=(1, length, heads, size))) for _ in "qkv"]
    weights = rng.normal(size=arrays[-1].shape)

    def value_and_gradients(function):
        def run(inputs):
            y, backward = jax.vjp(function, *inputs)
            return y, backward(jnp.asarray(weights, y.dtype))

        return jax.jit(run)

    def own(*inputs):
        return mixer.apply({}, Whole(), *inputs, method="gated")[0]

    run, run_reference = value_and_gradients(own), value_and_gradients(step_by_step)
    for name, draw in GATES.items():
        gates = draw(rng.normal(size=(1, length, heads)), rng.uniform(size=(1, length, heads)))
        inputs = [np.asarray(x, np.float32) for x in (*arrays, *gates)]
        y, gradients = jax.device_get(run(inputs))
        with jax.enable_x64(True):
            expected, slopes = jax.device_get(run_reference([x.astype(np.float64) for x in inputs]))
        assert np.linalg.norm(y - expected) < 1e-5 * np.linalg.norm(expected) + 1e-14, name
        # Gradients of all but the values cancel where a single write outweighs the rest.
        largest = max(np.linalg.norm(slope) for slope in slopes)
        for gradient, slope in zip(gradients, slopes, strict=True):
            assert np.linalg.norm(gradient - slope) < 1e-4 * np.linalg.norm(slope) + 1e-6 * largest + 1e-14, name


def test_parts_of_a_sequence_with_large_gates_are_the_whole(quick_jit):
    heads, size, length = 2, 4, 9
    mixer = MLSTM(num_heads=heads, key_size=size, chunk_size=4).mixer(0)
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(size=(1, length, heads, size)) for _ in "qkv"]
    inputs += [60 * rng.normal(size=(1, length, heads)), -40 * rng.uniform(size=(1, length, heads)) ** 8]
    inputs = [x.astype(np.float32) for x in inputs]

    def gated(over, inputs):
        return mixer.apply({}, over, *inputs, method="gated")

    prefill = quick_jit(lambda length: gated(Prefill(length), inputs))
    answer = quick_jit(lambda state, length: gated(Queries(state, length), inputs))
    step = quick_jit(lambda state, inputs, length: gated(Step(state, length), inputs))
    whole, _ = prefill(length)
    for split in (0, 1, 3, length - 1):
        _, state = prefill(split)
        queries, kept = answer(state, split)
        np.testing.assert_allclose(queries[:, split], whole[:, split], rtol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, kept, state)
        for position in range(split, length):
            read, state = step(state, [x[:, position : position + 1] for x in inputs], position)
            np.testing.assert_allclose(read[:, 0], whole[:, position], rtol=1e-5)


def test_a_query_that_finds_nothing_reads_zero_after_a_large_gate_too(quick_jit):
    mixer = MLSTM(num_heads=1, key_size=2).mixer(0)
    key = value = jnp.ones((1, 3, 1, 2))
    log_input, log_forget = jnp.full((1, 3, 1), 200.0), jnp.zeros((1, 3, 1))

    def read(query):
        return mixer.apply({}, Whole(), query, key, value, log_input, log_forget, method="gated")[0]

    y, slope = quick_jit(lambda query: (read(query), jax.grad(lambda query: read(query).sum())(query)))(0 * key)
    np.testing.assert_array_equal(y, np.zeros_like(y))
    assert np.isfinite(slope).all()
