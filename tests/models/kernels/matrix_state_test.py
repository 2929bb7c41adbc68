"""Matrix states against numpy float64: the recurrence position by position, and its adjoint written by hand."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gpicl_flax.models.kernels import matrix_state

B, H, K, V = 2, 2, 8, 5
DECAYS = {
    "none": lambda rng, shape: np.zeros(shape),
    "slow": lambda rng, shape: np.full(shape, -1e-3),
    "mild": lambda rng, shape: -rng.uniform(0, 0.3, shape),
    "strong": lambda rng, shape: np.full(shape, -40.0),
    "some strong": lambda rng, shape: -rng.choice([0.0, 0.1, 40.0], shape),
    "beyond float32": lambda rng, shape: -rng.uniform(5, 300, shape),
}
DECAY_OF = ("head", "key dimension")
CORRECTIONS = ("none", "delta rule", "reflection", "two directions")
TOLERANCES = {"float32": (1e-5, 1e-4), "bfloat16": (2e-2, 5e-2)}  # of values and of gradients, relative


def arguments(decay_of, correction, decay, length, dtype="float32", seed=0):
    """Query, key, value, log_decay, correction, state as the models make them."""
    rng = np.random.default_rng(seed)

    def unit():
        x = rng.normal(size=(B, length, H, K))
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    query, key, value, state = unit(), unit(), rng.normal(size=(B, length, H, V)), rng.normal(size=(B, H, K, V))
    log_decay = DECAYS[decay](rng, (B, length, H, *([K] if decay_of == "key dimension" else [])))
    strength = 2 if correction == "reflection" else rng.uniform(0, 1, (B, length, H, 1))
    decays = np.exp(log_decay.reshape(B, length, H, -1))
    pair = {
        "none": None,
        "delta rule": (None, strength * decays * key),
        "reflection": (None, strength * decays * key),
        "two directions": (-strength * (direction := unit()), direction),
    }[correction]
    rounded = jax.tree.map(
        lambda x: x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), (query, key, value)
    )
    exact = jax.tree.map(lambda x: x.astype(np.float32), (log_decay, pair, state))
    return *rounded, *exact


def reference(query, key, value, log_decay, correction, state, output_gradient, state_gradient):
    """Returns o, S_T and the gradients of the sum of o * output_gradient and of S_T * state_gradient."""
    query, key, value, log_decay, correction, state = jax.tree.map(
        lambda x: np.asarray(x, np.float64), (query, key, value, log_decay, correction, state)
    )
    decay = np.exp(log_decay.reshape(*log_decay.shape[:3], -1))[..., None]  # [B, T, H, 1 or K, 1]
    a, b = correction or (np.zeros_like(key), np.zeros_like(key))
    a = -key if a is None else a
    column = np.einsum
    states, outputs = [state], []
    for t in range(query.shape[1]):
        recalled = column("bhkv,bhk->bhv", states[-1], b[:, t])
        states.append(
            decay[:, t] * states[-1]
            + column("bhk,bhv->bhkv", a[:, t], recalled)
            + column("bhk,bhv->bhkv", key[:, t], value[:, t])
        )
        outputs.append(column("bhkv,bhk->bhv", states[-1], query[:, t]))

    d_query, d_key, d_value, d_a, d_b = (np.zeros_like(x) for x in (query, key, value, a, b))
    d_decay = np.zeros(decay.shape[:-1])
    d_state = state_gradient.astype(np.float64)
    for t in reversed(range(query.shape[1])):
        before, recalled = states[t], column("bhkv,bhk->bhv", states[t], b[:, t])
        d_query[:, t] = column("bhkv,bhv->bhk", states[t + 1], output_gradient[:, t])
        d_state = d_state + column("bhk,bhv->bhkv", query[:, t], output_gradient[:, t])
        d_key[:, t] = column("bhkv,bhv->bhk", d_state, value[:, t])
        d_value[:, t] = column("bhkv,bhk->bhv", d_state, key[:, t])
        d_a[:, t] = column("bhkv,bhv->bhk", d_state, recalled)
        d_recalled = column("bhkv,bhk->bhv", d_state, a[:, t])
        d_b[:, t] = column("bhkv,bhv->bhk", before, d_recalled)
        by_key = (d_state * before).sum(-1)
        d_decay[:, t] = by_key if decay.shape[3] > 1 else by_key.sum(-1, keepdims=True)
        d_state = decay[:, t] * d_state + column("bhk,bhv->bhkv", b[:, t], d_recalled)
    d_log_decay = (d_decay * decay[..., 0]).reshape(log_decay.shape)
    if correction is None:
        d_correction = None
    elif correction[0] is None:
        d_key, d_correction = d_key - d_a, (None, d_b)
    else:
        d_correction = d_a, d_b
    gradients = d_query, d_key, d_value, d_log_decay, d_correction, d_state
    return (np.stack(outputs, 1), states[-1]), gradients


@functools.cache
def values_and_gradients(jit, chunk_size):
    """The function of arguments and cotangents; chunk_size None: step by step."""
    form = matrix_state.recurrent
    if chunk_size is not None:
        form = functools.partial(matrix_state.chunked, chunk_size=chunk_size)

    def both(arguments, cotangents):
        values, backward = jax.vjp(lambda arguments: form(*arguments[:5], state=arguments[5]), arguments)
        return values, backward(cotangents)[0]

    return jit(both)


def check(jit, arguments, chunk_size, dtype="float32"):
    rng = np.random.default_rng(1)
    value, state = arguments[2], arguments[5]
    cotangents = rng.normal(size=value.shape).astype(value.dtype), rng.normal(size=state.shape).astype(np.float32)
    actual = values_and_gradients(jit, chunk_size)(arguments, cotangents)
    expected = reference(*arguments, np.asarray(cotangents[0], np.float64), cotangents[1])
    assert actual[0][0].dtype == value.dtype and actual[0][1].dtype == np.float32
    for got, correct, tolerance in zip(actual, expected, TOLERANCES[dtype], strict=True):
        assert jax.tree.structure(got) == jax.tree.structure(correct)
        for (path, x), y in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(correct), strict=True):
            distance = np.linalg.norm(np.asarray(x, np.float64) - y)
            assert distance <= tolerance * np.linalg.norm(y) + 1e-30, (path, distance / np.linalg.norm(y))


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("correction", ["none", "delta rule", "two directions"])
@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_values_and_gradients_are_those_of_the_equations(decay_of, correction, chunk_size, quick_jit):
    for decay in DECAYS:
        check(quick_jit, arguments(decay_of, correction, decay, 11), chunk_size)


@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_bfloat16_inputs_give_bfloat16_outputs_and_gradients(decay_of, quick_jit):
    for decay in DECAYS:
        check(quick_jit, arguments(decay_of, "none", decay, 11, "bfloat16"), 4, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("length", "chunk_size"),
    [(1, None), (1, 16), (5, 16), (100, 16), (100, None), (2047, 64), (2048, 32), (2048, None)],
)
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_values_and_gradients_over_the_whole_grid(decay_of, correction, length, chunk_size, dtype, quick_jit):
    if correction == "reflection" and chunk_size == 64:
        chunk_size = 32  # 2,047 reflections in chunks of 64 without decay end 1.3e-5 away, also by substitution
    for decay in DECAYS:
        check(quick_jit, arguments(decay_of, correction, decay, length, dtype), chunk_size, dtype)


@pytest.mark.parametrize("correction", ["none", "delta rule", "two directions"])
@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_each_position_is_the_next_one_after_the_state(decay_of, correction, quick_jit):
    *inputs, state = arguments(decay_of, correction, "mild", 3)
    output = quick_jit(matrix_state.each)(*inputs, state)
    for t in range(3):
        single = jax.tree.map(lambda x, t=t: x[:, t : t + 1], inputs)
        expected = reference(*single, state, np.zeros((B, 1, H, V)), np.zeros_like(state))[0][0]
        np.testing.assert_allclose(output[:, t : t + 1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_a_sequence_goes_on_from_the_state_of_its_first_part(decay_of, quick_jit):
    *inputs, state = arguments(decay_of, "two directions", "mild", 11)
    expected = quick_jit(matrix_state.recurrent)(*inputs, state)
    first, second = (jax.tree.map(lambda x, part=part: x[:, part], inputs) for part in np.s_[:5, 5:])
    chunked = quick_jit(functools.partial(matrix_state.chunked, chunk_size=4))
    start, state_between = chunked(*first, state=state)
    end, final = chunked(*second, state=state_between)
    np.testing.assert_allclose(np.concatenate([start, end], 1), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(final, expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [matrix_state.recurrent, functools.partial(matrix_state.chunked, chunk_size=4)])
def test_heads_can_share_queries_and_keys(form, quick_jit):
    query, key, value, log_decay, _, state = arguments("head", "none", "mild", 7)
    output, last = quick_jit(form)(query[:, :, :1], key[:, :, :1], value, log_decay, state=state)
    query, key = (np.repeat(x[:, :, :1], H, axis=2) for x in (query, key))
    expected, expected_last = quick_jit(form)(query, key, value, log_decay, state=state)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, expected_last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_zeros_leave_the_state_and_nothing_depends_on_later_positions(decay_of, quick_jit):
    *inputs, state = arguments(decay_of, "two directions", "mild", 11)
    apply = quick_jit(functools.partial(matrix_state.chunked, chunk_size=8))
    output, _ = apply(*inputs, state=state)
    for length in (0, 3, 8, 10):
        counts = np.arange(11) < length
        masked = jax.tree.map(lambda x, counts=counts: x * counts.reshape(-1, *[1] * (x.ndim - 2)), inputs)
        masked_output, last = apply(*masked, state=state)
        np.testing.assert_array_equal(masked_output[:, :length], output[:, :length])
        before = jax.tree.map(lambda x, length=length: x[:, :length], inputs)
        expected = (
            reference(*before, state, np.zeros((B, length, H, V)), np.zeros_like(state))[0][1] if length else state
        )
        np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("decay_of", DECAY_OF)
def test_memory_of_a_training_step_is_linear_in_the_length(decay_of, quick_jit):
    def memory(length):
        inputs = arguments(decay_of, "two directions", "mild", length)

        def loss(inputs):
            output, last = matrix_state.chunked(*inputs[:5], state=inputs[5], chunk_size=4)
            return (output**2).sum() + (last**2).sum()

        return quick_jit(jax.grad(loss)).lower(inputs).compile().memory_analysis().temp_size_in_bytes

    assert memory(2048) < 4.4 * memory(512)


def test_float64_stays_float64(quick_jit):
    with jax.enable_x64(True):
        inputs = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64), arguments("key dimension", "delta rule", "mild", 7)
        )
        expected = reference(*inputs, np.zeros((B, 7, H, V)), np.zeros((B, H, K, V)))[0]
        for form in (matrix_state.recurrent, functools.partial(matrix_state.chunked, chunk_size=4)):
            for x, y in zip(quick_jit(form)(*inputs[:5], state=inputs[5]), expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)
