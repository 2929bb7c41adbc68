"""The recurrent block of Griffin against numpy float64, written from the equations; what it starts with."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import RGLRU, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def expected(reference, maths):
    def mix(w, y):
        u = maths.heads(y, w["value"])
        if "value_convolution" in w:
            u = maths.convolved(u, w["value_convolution"]["kernel"])
        r, i = (
            sigmoid(np.einsum("bthi,hij->bthj", u, w[name]["kernel"]) + w[name]["bias"])
            for name in ("decay_gate", "input_gate")
        )
        decay = sigmoid(-w["decay"]) ** (8 * r)  # exp(-softplus(x)) is sigmoid(-x)
        h, states = np.zeros(u[:, 0].shape), []
        for t in range(u.shape[1]):
            h = decay[:, t] * h + np.sqrt(1 - decay[:, t] ** 2) * i[:, t] * u[:, t]
            states.append(h)
        return maths.gelu(maths.heads(y, w["gate"])) * np.stack(states, axis=1)

    return reference(mix)


@pytest.mark.parametrize("settings", [{}, {"form": "recurrent", "short_convolution": False}])
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(RGLRU(**SIZES, **settings), expected)


@pytest.mark.parametrize("form", ["parallel", pytest.param("recurrent", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected, form):
    model = RGLRU(**SIZES | {"num_layers": 1}, form=form)
    check_gradients(model, random_params(model, data), data, expected)


@pytest.mark.slow
def test_gradients_are_finite_where_nothing_is_forgotten_or_written(data, random_params, quick_jit):
    model = RGLRU(**SIZES | {"num_layers": 1})
    params = random_params(model, data)
    for bias in (-50, -300):  # a rounds to one; the gate of the decay is zero
        params["block_0"]["decay_gate"]["bias"] = np.full((3, 4), bias, np.float32)
        gradients = quick_jit(jax.grad(lambda params: (model.apply({"params": params}, *data) ** 2).sum()))(params)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_it_starts_with_slow_decays_and_half_open_gates(data, quick_jit):
    model = RGLRU(**SIZES | {"num_heads": 30, "key_size": 20, "num_layers": 1})

    def init(*data):
        block = nn.unbox(model.init(jax.random.key(0), *data))["params"]["block_0"]
        return {name: block[name] for name in ("decay", "decay_gate", "input_gate")}

    block = quick_jit(init)(*data)
    decay = sigmoid(-np.asarray(block["decay"], np.float64))
    assert 0.9 <= decay.min() < 0.901 and 0.998 < decay.max() <= 0.999
    np.testing.assert_allclose((decay**2).mean(), (0.9**2 + 0.999**2) / 2, atol=0.01)  # uniform is the square
    for name in ("decay_gate", "input_gate"):
        assert (block[name]["bias"] == 0).all()
        np.testing.assert_allclose(block[name]["kernel"].std(), 20**-0.5, rtol=0.05)


def test_state_size():
    assert RGLRU().state_size(196, 100) == StateSize(paper=4 * 256, exact=4 * 4 * 256)
    assert RGLRU(**SIZES, short_convolution=False).state_size(5, 7) == StateSize(paper=2 * 12, exact=2 * 12)


def test_a_form_that_is_none_is_refused():
    with pytest.raises(UsageError, match="RGLRU.form must be one of parallel, recurrent, not 'chunked'"):
        RGLRU(form="chunked")
