"""The backbone in numpy float64, written from the equations, around any mixer."""

import types

import jax
import numpy as np
import pytest

C = 4


def norm(x, w):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * w["scale"] + w["bias"]


def rms_norm(x, w):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w["scale"]


def unit_length(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(x))


def heads(y, w):
    """A layer from y [B, T, d] to [B, T, H, K]."""
    return np.einsum("btd,dhk->bthk", y, w["kernel"]) + w["bias"]


def rotated(x):
    """Queries or keys [B, T, H, K] as complex numbers, turned by t times 10000^(-2 i / K), and real again."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * 10_000.0 ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def convolved(x, kernel):
    """x [B, T, H, K], where position t sees the three before."""
    padded = np.pad(x, ((0, 0), (3, 0), (0, 0), (0, 0)))
    return sum(kernel[j] * padded[:, j : j + x.shape[1]] for j in range(4))


def queries_keys_values(w, y):
    found = [heads(y, w[name]) for name in ("query", "key", "value")]
    if "query_convolution" not in w:
        return found
    kernels = [w[f"{name}_convolution"]["kernel"] for name in ("query", "key", "value")]
    return [convolved(x, kernel) for x, kernel in zip(found, kernels, strict=True)]


def loops(query, key, value, decay):
    """S_t = diag(decay_t) S_{t-1} + k_t v_t^T, read as S_t^T q_t; decay [B, T, H, K]."""
    batch, length, num_heads, size = key.shape
    read = np.zeros(value.shape)
    for b, h in np.ndindex(batch, num_heads):
        state = np.zeros((size, value.shape[-1]))
        for t in range(length):
            state = decay[b, t, h][:, None] * state + np.outer(key[b, t, h], value[b, t, h])
            read[b, t, h] = state.T @ query[b, t, h]
    return read


@pytest.fixture
def reference():
    """From a mixer without its output layer, the function (params, inputs, labels) -> logits."""

    # mix(w, y [B, T, d]) -> [B, T, H, V]; in the MLP, act(w, y) -> [B, T, hidden]
    def with_mixer(mix, act=lambda w, y: gelu(y @ w["mlp_hidden"]["kernel"] + w["mlp_hidden"]["bias"])):
        def logits(params, inputs, labels):
            p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
            past = np.zeros((*labels.shape, C))
            past[:, 1:] = np.eye(C)[labels[:, :-1]]
            x = np.concatenate([inputs.astype(np.float64), past], axis=-1)
            x = x @ p["embedding"]["kernel"] + p["embedding"]["bias"]
            for layer in range(sum(name.startswith("block_") for name in p)):
                w = p[f"block_{layer}"]
                mixed = mix(w, norm(x, w["mixer_norm"]))
                x = x + np.einsum("bthk,hkd->btd", mixed, w["mixer_output"]["kernel"]) + w["mixer_output"]["bias"]
                if "mlp_norm" not in w:
                    continue
                x = x + act(w, norm(x, w["mlp_norm"])) @ w["mlp_output"]["kernel"] + w["mlp_output"]["bias"]
            return norm(x, p["final_norm"]) @ p["logits"]["kernel"] + p["logits"]["bias"]

        return logits

    return with_mixer


@pytest.fixture
def maths():
    """The functions of the equations, by their names."""
    return types.SimpleNamespace(
        convolved=convolved,
        gelu=gelu,
        heads=heads,
        loops=loops,
        queries_keys_values=queries_keys_values,
        rms_norm=rms_norm,
        rotated=rotated,
        sigmoid=sigmoid,
        silu=silu,
        softplus=softplus,
        unit_length=unit_length,
    )


@pytest.fixture
def check_forward(data, random_params, quick_jit):
    """(model, reference): the logits of the model at random parameters are those of reference(params, *data)."""

    def check(model, reference):
        params = random_params(model, data)
        logits = quick_jit(model.apply)({"params": params}, *data)
        np.testing.assert_allclose(logits, reference(params, *data), rtol=1e-4, atol=1e-4)

    return check
