"""The plain flax references of benchmarks/models.py compute what the models do, so that times are of one function."""

import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax import models

X, T, B, C, D = 3, 7, 2, 10, 8
SMALL = {"num_layers": 2, "num_heads": 2, "key_size": 4, "model_size": D}
# The layers of each cell in the order in which it makes them, by their names in the model.
DENSE_GENERAL = {
    "LinearAttention": ["query", "key", "value", "mixer_output"],
    "RetNet": ["query", "key", "value", "gate", "mixer_output"],
    "Mamba2": ["value", "gate", "mixer_output"],
    "GLA": ["query", "key", "value", "decay", "gate", "mixer_output"],
    "MLSTM": ["query", "key", "value", "gate", "mixer_output"],
    "KDA": ["query", "key", "value", "decay", "gate", "mixer_output"],
    "RWKV7": ["query", "key", "value", "decay_up", "rate_up", "gate_up", "value_residual_up", "mixer_output"],
    "RGLRU": ["value", "gate", "mixer_output"],
    "SlidingWindowTransformer": ["query", "key", "value", "mixer_output"],
}
DENSE = {
    "Mamba2": ["query", "key", "step"],
    "GLA": ["decay_low_rank"],
    "MLSTM": ["input_gate", "forget_gate"],
    "KDA": ["strength", "decay_low_rank", "gate_low_rank"],
    "RWKV7": ["decay_down", "rate_down", "gate_down", "value_residual_down"],
}
CONVOLUTIONS = {
    "Mamba2": ["query_convolution", "key_convolution", "value_convolution"], "RGLRU": ["value_convolution"],
}  # fmt: skip
OTHERS = {
    "rate": "log_decay_rate", "skip": "skip", "mix": "token_shift", "removed": "removed_key", "added": "added_key",
    "bonus": "bonus", "decay": "decay",
}  # fmt: skip


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(pathlib.Path(__file__).parents[3] / "benchmarks"), *sys.path])
    return importlib.import_module("reference_models").reference


def of_cell(name, block, cell):
    """The parameters of a cell, from those of the model's block."""
    found = {}
    for kind, names in (("DenseGeneral", DENSE_GENERAL), ("Dense", DENSE), ("Convolution", CONVOLUTIONS)):
        found |= {f"{kind}_{i}": block[own] for i, own in enumerate(n for n in names.get(name, []) if n in block)}
    found |= {key: block["read_norm"] for key in ("RMSNorm_0", "LayerNorm_0") if key in cell}
    found |= {key: block[own] for key, own in OTHERS.items() if key in cell}
    for gate in ("decay_gate", "input_gate"):
        if gate in cell:
            found |= {gate: block[gate]["kernel"], f"{gate}_bias": block[gate]["bias"]}
    return found


def of_reference(name, ours, plain):
    """The parameters of the reference, from those of the model."""
    found = {"Dense_0": ours["embedding"], "LayerNorm_4": ours["final_norm"], "Dense_5": ours["logits"]}
    for layer in range(2):
        block = ours[f"block_{layer}"]
        found |= {f"LayerNorm_{2 * layer}": block["mixer_norm"], f"LayerNorm_{2 * layer + 1}": block["mlp_norm"]}
        found |= {f"Dense_{2 * layer + 1}": block["mlp_hidden"], f"Dense_{2 * layer + 2}": block["mlp_output"]}
        if (cell := f"{name}Cell_{layer}") in plain:
            found[cell] = of_cell(name, block, plain[cell])
        else:  # attention is no cell
            for i, own in enumerate(DENSE_GENERAL[name]):
                found[f"DenseGeneral_{4 * layer + i}"] = block[own]
    return jax.tree.map(lambda y, like: y.reshape(like.shape), found, dict(plain))


FAST = {"Mamba2", "RWKV7"}  # the others are left to long checks


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in DENSE_GENERAL]
)
@pytest.mark.slow
def test_the_reference_is_the_model(name, reference, quick_jit):
    settings = SMALL | ({"window": 3} if name == "SlidingWindowTransformer" else {})
    model, rng = getattr(models, name)(**settings), np.random.default_rng(0)
    inputs, labels = jnp.asarray(rng.normal(size=(B, T, X)), jnp.float32), jnp.asarray(rng.integers(C, size=(B, T)))
    plain = reference(model)
    shapes, like = (
        nn.unbox(jax.eval_shape(m.init, jax.random.key(0), inputs, labels))["params"] for m in (model, plain)
    )
    ours = jax.tree.map(lambda y: jnp.asarray(0.4 * rng.normal(size=y.shape), jnp.float32), shapes)
    expected = quick_jit(model.apply)({"params": ours}, inputs, labels)
    found = quick_jit(plain.apply)({"params": of_reference(name, ours, like)}, inputs, labels)
    # Epsilons of norms differ.
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert np.abs(np.diff(expected, axis=1)).max() > 0.1
