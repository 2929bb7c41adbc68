"""Vector states against numpy float64: the recurrence position by position, and its adjoint written by hand."""

import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from gpicl_flax.models.kernels import vector_state

B, D = 2, 5
DECAYS = {
    "none": lambda rng, shape: np.zeros(shape),
    "slow": lambda rng, shape: np.full(shape, -5e-4),
    "mild": lambda rng, shape: -rng.uniform(0, 0.3, shape),
    "strong": lambda rng, shape: np.full(shape, -40.0),
    "some strong": lambda rng, shape: -rng.choice([0.0, 0.1, 40.0], shape),
    "beyond float32": lambda rng, shape: -rng.uniform(5, 300, shape),
}
FORMS = {"recurrent": vector_state.recurrent, "parallel": vector_state.parallel}
TOLERANCES = {"float32": (1e-5, 1e-4), "bfloat16": (2e-2, 5e-2)}  # of values and of gradients, relative


def arguments(decay, length, dtype="float32"):
    rng = np.random.default_rng(0)
    x, log_decay = rng.normal(size=(B, length, D)), DECAYS[decay](rng, (B, length, D))
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return x, log_decay.astype(np.float32), rng.normal(size=(B, D)).astype(np.float32)


def reference(x, log_decay, state, gradient, state_gradient):
    """Returns h, h_T and the gradients of the sum of h * gradient and of h_T * state_gradient."""
    x, log_decay, state, gradient, d_state = (
        np.asarray(z, np.float64) for z in (x, log_decay, state, gradient, state_gradient)
    )
    states = [state]
    for t in range(x.shape[1]):
        states.append(np.exp(log_decay[:, t]) * states[-1] + x[:, t])
    d_x, d_log_decay = np.zeros_like(x), np.zeros_like(x)
    for t in reversed(range(x.shape[1])):
        d_x[:, t] = d_state = d_state + gradient[:, t]
        d_state = np.exp(log_decay[:, t]) * d_state
        d_log_decay[:, t] = d_state * states[t]
    return (np.stack(states[1:], 1), states[-1]), (d_x, d_log_decay, d_state)


@functools.cache
def values_and_gradients(jit, form):
    def both(arguments, cotangents):
        values, backward = jax.vjp(lambda arguments: FORMS[form](*arguments), arguments)
        return values, backward(cotangents)[0]

    return jit(both)


@pytest.mark.parametrize(
    ("length", "dtype"),
    [
        (1, "float32"),
        (11, "bfloat16"),
        (100, "float32"),
        *(pytest.param(length, dtype, marks=pytest.mark.slow) for length in (2047, 2048) for dtype in TOLERANCES),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_those_of_the_equations(form, length, dtype, quick_jit):
    for decay in DECAYS:
        inputs, rng = arguments(decay, length, dtype), np.random.default_rng(1)
        cotangents = (
            rng.normal(size=inputs[0].shape).astype(inputs[0].dtype),
            rng.normal(size=(B, D)).astype(np.float32),
        )
        actual = values_and_gradients(quick_jit, form)(inputs, cotangents)
        assert actual[0][0].dtype == inputs[0].dtype and actual[0][1].dtype == np.float32
        for got, correct, tolerance in zip(actual, reference(*inputs, *cotangents), TOLERANCES[dtype], strict=True):
            for x, y in zip(got, correct, strict=True):
                assert np.linalg.norm(np.asarray(x, np.float64) - y) <= tolerance * np.linalg.norm(y), decay


def test_each_position_is_the_next_one_after_the_state(quick_jit):
    x, log_decay, state = arguments("mild", 3)
    expected = np.exp(log_decay) * state[:, None] + x
    np.testing.assert_allclose(quick_jit(vector_state.each)(x, log_decay, state), expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_starts_from_zero_and_goes_on_from_a_state(form, quick_jit):
    x, log_decay, _ = arguments("mild", 11)
    apply = quick_jit(FORMS[form])
    expected = reference(x, log_decay, np.zeros((B, D)), np.zeros_like(x), np.zeros((B, D)))[0]
    first, between = apply(x[:, :4], log_decay[:, :4])
    second, last = apply(x[:, 4:], log_decay[:, 4:], between)
    np.testing.assert_allclose(np.concatenate([first, second], 1), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, expected[1], rtol=1e-5, atol=1e-6)
