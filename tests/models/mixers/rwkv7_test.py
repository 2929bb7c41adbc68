"""RWKV-7 against numpy float64, written from the equations, and against numbers that were worked out by hand."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from gpicl_flax.models import RWKV7, StateSize
from gpicl_flax.models.passes import Prefill

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def low_rank(w, name, x, activation=lambda y: y):
    y = activation(x @ w[f"{name}_down"]["kernel"])
    return np.einsum("btr,rhk->bthk", y, w[f"{name}_up"]["kernel"]) + w[f"{name}_up"].get("bias", 0)


def before(y):
    return np.pad(y, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def wkv(receptance, w, k, v, kappa, a):
    """The paper's S_t = S_{t-1} (diag(w) - kappa^T (a * kappa)) + v^T k, whose rows are values, read as S r."""
    read = np.zeros(v.shape)
    for b, h in np.ndindex(v.shape[0], v.shape[2]):
        state = np.zeros((v.shape[-1], k.shape[-1]))
        for t in range(v.shape[1]):
            i = b, t, h
            state = state @ (np.diag(w[i]) - np.outer(kappa[i], a[i] * kappa[i])) + np.outer(v[i], k[i])
            read[i] = state @ receptance[i]
    return read


def channel_mix(w, y):
    hidden = (y + w["channel_token_shift"] * (before(y) - y)) @ w["mlp_hidden"]["kernel"] + w["mlp_hidden"]["bias"]
    return np.maximum(hidden, 0) ** 2


@pytest.fixture
def expected(reference, maths):
    def make(**settings):
        first = None

        def mix(w, y):
            nonlocal first
            of_query, of_decay, of_key, of_value, of_rate, of_gate = (
                y + mu * (before(y) - y) for mu in w["token_shift"]
            )
            r, k, v = (maths.queries_keys_values(w, x)[i] for i, x in enumerate((of_query, of_key, of_value)))
            decay = np.exp(-np.exp(-0.5) * sigmoid(low_rank(w, "decay", of_decay, np.tanh)))
            a = sigmoid(low_rank(w, "rate", of_rate))
            gate = low_rank(w, "gate", of_gate, sigmoid)
            if "value_residual_up" in w:
                v = v + (first - v) * sigmoid(low_rank(w, "value_residual", of_value))
            else:
                first = v
            kappa = k * w["removed_key"]
            kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
            k = k * (1 + (a - 1) * w["added_key"])
            o = wkv(r, decay, k, v, kappa, a)
            mean, var = o.mean(-1, keepdims=True), o.var(-1, keepdims=True)
            o = (o - mean) / np.sqrt(var + k.shape[-1] * 1e-5) * w["read_norm"]["scale"] + w["read_norm"]["bias"]
            return (o + (r * k * w["bonus"]).sum(-1, keepdims=True) * v) * gate

        return reference(mix, **settings)

    return make


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"form": "recurrent", "value_size": 3}, marks=pytest.mark.slow),
        {"short_convolution": True},
    ],
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, settings):
    check_forward(RWKV7(**SIZES, **settings), expected())


@pytest.mark.slow
def test_forward_pass_with_the_channel_mix_is_that_of_the_equations(check_forward, expected):
    check_forward(RWKV7(**SIZES, channel_mix=True), expected(act=channel_mix))


@pytest.mark.slow
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected):
    model = RWKV7(**SIZES, channel_mix=True)
    check_gradients(model, random_params(model, data), data, expected(act=channel_mix))


# The paper's equations by hand, for a head with K = V = 2, and x_1 = (3, 2), x_2 = (4, 1.5). r = k = x. v is halfway
# between x and the one before. w = (1, exp(-e^(-1/2) / 2)) = (1, 0.738403), a = (1, 1/2), k_k = (1, 2), k_a = 1/2,
# r_k = (1, 1/2), g = (1, 2). In the orientation S [K, V]:
#
#   t = 1: v = (1.5, 1)      k~ = (3, 2 (1 - 1/2 1/2)) = (3, 1.5)     kappa = (3, 4) / 5
#          S = k~ v^T = [[4.5, 3], [2.25, 1.5]]
#          o = 3 (4.5, 3) + 2 (2.25, 1.5) = (18, 12), which its norm takes to (1, -1)
#          bonus = (3 3 1 + 2 1.5 1/2) v = 10.5 v = (15.75, 10.5);  y = (1 (1 + 15.75), 2 (-1 + 10.5)) = (16.75, 19)
#   t = 2: v = (3.5, 1.75)   k~ = (4, 1.5 3/4) = (4, 1.125)           kappa = (4, 3) / 5, a kappa = (0.8, 0.3)
#          kappa^T S = 0.8 (4.5, 3) + 0.6 (2.25, 1.5) = (4.95, 3.3)
#          S: row 1 = 1 (4.5, 3) - 0.8 (4.95, 3.3) + 4 (3.5, 1.75) = (14.54, 7.36)
#             row 2 = 0.738403 (2.25, 1.5) - 0.3 (4.95, 3.3) + 1.125 (3.5, 1.75) = (4.113907, 2.086355)
#          o = 4 (14.54, 7.36) + 1.5 (4.113907, 2.086355), normed (1, -1)
#          bonus = (4 4 1 + 1.5 1.125 1/2) v = 16.84375 v;  y = (1 + 58.953125, 2 (-1 + 29.4765625))
BY_HAND = {
    1: ([[4.5, 3], [2.25, 1.5]], (16.75, 19)),
    2: ([[14.54, 7.36], [4.113907, 2.086355]], (59.953125, 56.953125)),
}
# In a later block with sigmoid(v_0) = 1/2 and v_first = (3.5, 3), v_1 = (2.5, 2), and so S_1 = (3, 1.5) (2.5, 2)^T.
WITH_RESIDUAL = [[7.5, 6], [3.75, 3]]


@pytest.fixture
def by_hand():
    """A time mix, its parameters, and x [1, 2, 2]."""
    mixer = RWKV7(num_layers=1, num_heads=1, key_size=2, model_size=2, form="recurrent").mixer(0)
    identity = np.eye(2)
    linear = {"kernel": identity[:, None], "bias": np.zeros((1, 2))}
    params = {
        "query": linear,
        "key": linear,
        "value": linear,
        "token_shift": np.array([[0], [0], [0], [0.5], [0], [0]]) * np.ones(2),
        "decay_down": {"kernel": np.zeros((2, 8))},
        "decay_up": {"kernel": np.ones((8, 1, 2)), "bias": np.array([[-100, 0]])},
        "rate_down": {"kernel": np.zeros((2, 8))},
        "rate_up": {"kernel": np.ones((8, 1, 2)), "bias": np.array([[100, 0]])},
        "value_residual_down": {"kernel": np.zeros((2, 8))},
        "value_residual_up": {"kernel": np.ones((8, 1, 2)), "bias": np.zeros((1, 2))},
        "gate_down": {"kernel": np.zeros((2, 8))},
        "gate_up": {"kernel": np.array([[0.25, 0.5]]) * np.ones((8, 1, 2))},  # 8 sigmoid(0) (1/4, 1/2) = (1, 2)
        "removed_key": np.array([[1, 2]]),
        "added_key": np.full((1, 2), 0.5),
        "bonus": np.array([[1, 0.5]]),
        "read_norm": {"scale": np.ones((1, 2)), "bias": np.zeros((1, 2))},
        "mixer_output": {"kernel": identity[None], "bias": np.zeros(2)},
    }
    return mixer, {"params": jax.tree.map(lambda x: np.asarray(x, np.float32), params)}, np.array([[[3, 2], [4, 1.5]]])


@pytest.mark.parametrize("length", BY_HAND)
def test_states_and_outputs_are_those_worked_out_by_hand(by_hand, length):
    mixer, params, x = by_hand
    output, state, shared = mixer.apply(params, x, Prefill(length), {}, method="with_shared")
    matrix, expected = BY_HAND[length]
    np.testing.assert_allclose(state["matrix"][0, 0], matrix, rtol=1e-5)
    np.testing.assert_allclose(output[0, length - 1], expected, rtol=1e-5)
    np.testing.assert_array_equal(state["token_shift"][0], x[0, length - 1])
    np.testing.assert_allclose(shared["first_values_1x2"][0, :, 0], [[1.5, 1], [3.5, 1.75]], rtol=1e-6)


def test_values_of_the_first_block_come_in_as_worked_out_by_hand(by_hand):
    mixer, params, x = by_hand
    shared = {"first_values_1x2": np.full((1, 2, 1, 2), [3.5, 3], np.float32)}
    _, state, after = mixer.apply(params, x, Prefill(1), shared, method="with_shared")
    np.testing.assert_allclose(state["matrix"][0, 0], WITH_RESIDUAL, rtol=1e-5)
    assert after == shared


def test_it_starts_as_the_authors_code_does(data, quick_jit):
    model = RWKV7(**SIZES | {"num_layers": 3}, channel_mix=True)

    def init(*data):
        params = nn.unbox(model.init(jax.random.key(0), *data))["params"]
        params = traverse_util.flatten_dict({name: params[name] for name in ("block_0", "block_2")}, sep="/")
        return {name: x for name, x in params.items() if not name.endswith("_up/kernel")}

    params = traverse_util.unflatten_dict(quick_jit(init)(*data), sep="/")
    first, last = params["block_0"], params["block_2"]
    # i / d to the power 0.2 (1 - layer / layers) and 0.9 of the same; the channel mix has its fourth power.
    place = np.arange(10) / 10
    np.testing.assert_allclose(first["token_shift"][0], 1 - place**0.2, atol=1e-6)
    np.testing.assert_allclose(last["token_shift"][1], 1 - place ** (0.9 / 3), atol=1e-6)
    np.testing.assert_allclose(last["channel_token_shift"], 1 - place ** (1 / 81), atol=1e-6)
    # -6 + 6 n / 11 in the first block and its square in the last, + 0.5, + 2.5 times -1, -1/9, 1/9, 1 in each head.
    zigzag, rising = np.tile([-1, -1 / 9, 1 / 9, 1], 3), np.arange(12) / 11
    np.testing.assert_allclose(first["decay_up"]["bias"].ravel(), -5.5 + 6 * rising + 2.5 * zigzag, atol=1e-5)
    np.testing.assert_allclose(last["decay_up"]["bias"].ravel(), -5.5 + 6 * rising**2 + 2.5 * zigzag, atol=1e-5)
    rate = -0.19 + 0.3 * zigzag + 0.4 * (rising - 0.5)
    np.testing.assert_allclose(first["rate_up"]["bias"].ravel(), rate, atol=1e-6)
    np.testing.assert_allclose(last["value_residual_up"]["bias"].ravel(), 0.73 - 0.4 * (rising - 0.5), atol=1e-6)
    np.testing.assert_allclose(first["removed_key"].ravel(), 0.71 - 0.1 * (rising - 0.5), atol=1e-6)
    assert "value_residual_up" not in first
    assert (last["gate_down"]["kernel"] == 0).all() and (last["decay_down"]["kernel"] == 0).all()


def test_state_size():
    matrices = 2 * 3 * 4 * 4
    assert RWKV7(**SIZES).state_size(5, 7) == StateSize(paper=matrices, exact=matrices + 2 * 10)
    assert RWKV7(**SIZES, channel_mix=True).state_size(5, 7) == StateSize(paper=matrices, exact=matrices + 2 * 2 * 10)
