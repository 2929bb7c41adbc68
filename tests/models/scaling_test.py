"""Roles of tensors and what they do to models: muP (arXiv 2203.03466, Table 8) and CompleteP (2505.01618, Table 1)."""

import re

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax import models
from gpicl_flax.errors import UsageError
from gpicl_flax.models import scaling
from gpicl_flax.models.scaling import HIDDEN, INPUT, OUTPUT, VECTOR, TensorScale

MODELS = [getattr(models, name) for name in models.__all__ if name[0].isupper() and name[-1] != "S"]
MODELS = [cls for cls in MODELS if isinstance(cls, type) and issubclass(cls, models.SequenceModel) and cls.growing]
# A small base, whatever of these settings a model has.
SMALL = {
    "num_classes": 4, "num_layers": 2, "num_heads": 2, "key_size": 4, "model_size": 8, "mlp_ratio": 2, "chunk_size": 2,
    "size": 4, "grid_size": 2, "message_size": 3, "max_length": 7,
}  # fmt: skip
PARTS = (
    models.RGLRU(num_heads=2, key_size=4), models.DeltaNet(num_heads=2, key_size=4),
    models.SlidingWindowTransformer(num_heads=2, key_size=4),
)  # fmt: skip
OWN = {"Hybrid": {"pattern": PARTS, "num_layers": 3}, "LSTM": {"hidden_size": 6}, "MLP": {"hidden_size": 6}}


def small(cls, **settings):
    """A model of a small base width."""
    known = {name: value for name, value in SMALL.items() if hasattr(cls, name)} | OWN.get(cls.__name__, {})
    return cls(**known | settings)


def mup(model, times=1, **settings):
    """The model at a multiple of its width, which is the base."""
    grown = model.grown(times * model.width)
    return model.clone(parametrization="mup", base_width=model.width, **grown | settings)


def params_of(model, data):
    return nn.unbox(model.init(jax.random.key(0), *data))["params"]


def test_every_model_of_the_package_is_here():
    assert len(MODELS) == 17


# Of a width 4 times the base of 64; the ranks of RWKV-7 grow with the root, in steps of 8: 16 to 40, and 40 to 80.
_NORMS_AND_BIASES = {
    **dict.fromkeys(("mlp_norm/bias", "mlp_norm/scale", "mlp_hidden/bias", "mlp_output/bias"), (VECTOR, 1, 4)),
    **dict.fromkeys(("query/bias", "key/bias", "value/bias"), (VECTOR, 1, 4)),
}
_BLOCK = {
    **dict.fromkeys(("query/kernel", "key/kernel", "value/kernel"), (HIDDEN, 4, 4)),
    **dict.fromkeys(("mlp_hidden/kernel", "mlp_output/kernel"), (HIDDEN, 4, 4)),
    **_NORMS_AND_BIASES,
}
_AROUND = {
    "embedding/kernel": (INPUT, 1, 4), "embedding/bias": (VECTOR, 1, 4), "final_norm/scale": (VECTOR, 1, 4),
    "final_norm/bias": (VECTOR, 1, 4), "logits/kernel": (OUTPUT, 4, 1), "logits/bias": (VECTOR, 1, 1),
}  # fmt: skip
_MIXER = {
    "mixer_norm/bias": (VECTOR, 1, 4), "mixer_norm/scale": (VECTOR, 1, 4), "mixer_output/kernel": (HIDDEN, 4, 4),
    "mixer_output/bias": (VECTOR, 1, 4),
}  # fmt: skip
EXPECTED = {
    "LSTM": {
        "mlp_0/kernel": (INPUT, 1, 4), "mlp_0/bias": (VECTOR, 1, 4), "mlp_1/kernel": (HIDDEN, 4, 4),
        "mlp_1/bias": (VECTOR, 1, 4), "gates_input/kernel": (HIDDEN, 4, 4), "gates_input/bias": (VECTOR, 1, 4),
        "gates_recurrent": (HIDDEN, 4, 4), "logits/kernel": (OUTPUT, 4, 1), "logits/bias": (VECTOR, 1, 1),
    },
    "Transformer": _AROUND | {"positions": (INPUT, 1, 4)} | {
        f"block_0/{name}": each for name, each in (_BLOCK | {
            "attention_norm/bias": (VECTOR, 1, 4), "attention_norm/scale": (VECTOR, 1, 4),
            "attention_output/kernel": (HIDDEN, 4, 4), "attention_output/bias": (VECTOR, 1, 4),
        }).items()
    },
    "GLA": _AROUND | {
        f"block_0/{name}": each for name, each in (_BLOCK | _MIXER | {
            "decay_low_rank/kernel": (OUTPUT, 4, 1), "decay/kernel": (INPUT, 1, 4), "decay/bias": (VECTOR, 1, 4),
            "read_norm/scale": (VECTOR, 1, 1), "gate/kernel": (HIDDEN, 4, 4), "gate/bias": (VECTOR, 1, 4),
        }).items()
    },
    "RWKV7": _AROUND | {
        f"block_0/{name}": each for name, each in (_BLOCK | _MIXER | {
            "token_shift": (INPUT, 1, 4),
            "decay_down/kernel": (HIDDEN, 4, 2.5), "decay_up/kernel": (HIDDEN, 2.5, 4), "decay_up/bias": (VECTOR, 1, 4),
            "rate_down/kernel": (HIDDEN, 4, 2.5), "rate_up/kernel": (HIDDEN, 2.5, 4), "rate_up/bias": (VECTOR, 1, 4),
            "gate_down/kernel": (HIDDEN, 4, 2), "gate_up/kernel": (HIDDEN, 2, 4),
            "removed_key": (VECTOR, 1, 4), "added_key": (VECTOR, 1, 4), "bonus": (VECTOR, 1, 4),
            "read_norm/scale": (VECTOR, 1, 4), "read_norm/bias": (VECTOR, 1, 4),
        }).items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_roles_are_those_of_a_table_by_hand(name):
    sizes = {"model_size": 64, "num_layers": 1} if name != "LSTM" else {}
    found = mup(small(getattr(models, name), **sizes), times=4).tensor_scales()
    shown = {"/".join(path): (scale.role, scale.fan_in, scale.fan_out) for path, scale in found.items()}
    assert shown == EXPECTED[name]


def test_heads_of_one_key_and_blocks_of_a_matrix_have_their_roles():
    shared = mup(small(models.Mamba2), times=2).tensor_scales()
    assert shared["block_0", "key", "kernel"] == TensorScale(OUTPUT, 2, 1)  # d x K, whatever the number of heads
    assert shared["block_0", "value_convolution", "kernel"] == TensorScale(INPUT, 1, 2)
    diagonal = mup(small(models.RGLRU), times=2).tensor_scales()
    assert diagonal["block_0", "decay_gate", "kernel"] == TensorScale(VECTOR, 1, 2)  # H matrices of K x K
    keys = mup(small(models.RGLRU, grows_by="keys"), times=2).tensor_scales()
    assert keys["block_0", "decay_gate", "kernel"] == TensorScale(HIDDEN, 2, 2)


def test_factors_are_those_of_the_papers_tables():
    hidden, output = TensorScale(HIDDEN, 4, 4, depth=2), TensorScale(OUTPUT, 4, 1)
    assert (hidden.init, hidden.multiplier, hidden.rate, hidden.decay, hidden.epsilon) == (1, 1, 1 / 4, 4, 1 / 8)
    assert (output.init, output.multiplier, output.rate, output.decay, output.epsilon) == (2, 1 / 4, 1, 1, 1 / 4)
    for scale in (TensorScale(INPUT, 1, 4), TensorScale(VECTOR, 1, 4)):
        assert (scale.init, scale.multiplier, scale.rate, scale.decay, scale.epsilon) == (1, 1, 1, 1, 1 / 4)
    assert TensorScale(VECTOR).is_one


@pytest.mark.parametrize("cls", MODELS)
def test_every_model_scales(cls):
    base = small(cls, **{"num_layers": 1} if hasattr(cls, "base_depth") and cls is not models.Hybrid else {})
    twice = mup(base, times=2)
    assert twice.width == 2 * base.width and twice.width_ratio == 2
    scales = twice.tensor_scales()
    shapes = scaling.flatten(nn.unbox(models.abstract_parameters(twice, 3, 2)))
    assert scales.keys() == shapes.keys()
    assert {scale.role for scale in scales.values()} >= {HIDDEN, OUTPUT}
    same = mup(base).tensor_scales()
    assert all(scale.is_one for scale in same.values()) and same.keys() == scales.keys()
    # Every tensor that is larger has a factor that says so.
    smaller = scaling.flatten(nn.unbox(models.abstract_parameters(base, 3, 2)))
    for path, scale in scales.items():
        growth = np.prod(shapes[path].shape) / np.prod(smaller[path].shape)
        assert growth == pytest.approx(scale.fan_in * scale.fan_out), path


def programs(model, data):
    """The program of initial values and predictions, as text."""

    def both(key):
        variables = model.init(key, *data)
        return nn.unbox(variables), model.apply(variables, *data)

    return re.sub(r" at 0x\w+", "", str(jax.make_jaxpr(both)(jax.random.key(0))))


_QUICK = (models.Transformer, models.LSTM, models.OuterProductLSTM, models.VSML, models.GLA)


@pytest.mark.parametrize("cls", [cls if cls in _QUICK else pytest.param(cls, marks=pytest.mark.slow) for cls in MODELS])
def test_at_the_base_the_programs_are_those_of_the_standard_parametrisation(cls, data):
    model = small(cls)
    at_base = mup(model, **({"base_depth": model.num_layers} if hasattr(model, "base_depth") else {}))
    assert programs(at_base, data) == programs(model, data)


def test_a_read_out_starts_as_at_the_base_and_is_divided(data, quick_jit):
    base = models.LSTM(num_classes=4, hidden_size=64)
    model = mup(base, times=4)
    params = quick_jit(lambda: params_of(model, data))()
    standard = quick_jit(lambda: params_of(base.at_width(256), data))()
    np.testing.assert_allclose(params["logits"]["kernel"], 2 * standard["logits"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(params["gates_recurrent"], standard["gates_recurrent"])
    params["logits"]["bias"] = np.arange(4.0)
    divided = params | {"logits": {"kernel": params["logits"]["kernel"] / 4, "bias": params["logits"]["bias"]}}
    expected = quick_jit(base.at_width(256).apply)({"params": divided}, *data)
    np.testing.assert_allclose(quick_jit(model.apply)({"params": params}, *data), expected, rtol=2e-5, atol=1e-6)


def test_larger_keys_have_logits_over_their_size(data, quick_jit, random_params):
    base = small(models.Transformer, grows_by="keys")
    model = mup(base, times=4)
    assert (model.num_heads, model.key_size) == (2, 16)
    params = random_params(model, data)
    expected = jax.tree.map(np.copy, params)
    for layer in ("block_0", "block_1"):  # sqrt(4) / 16, in the place of 1 / sqrt(16)
        expected[layer]["query"] = {name: array / 2 for name, array in expected[layer]["query"].items()}
    expected["logits"]["kernel"] /= 4
    standard = base.at_width(model.width)
    np.testing.assert_allclose(
        quick_jit(model.apply)({"params": params}, *data),
        quick_jit(standard.apply)({"params": expected}, *data),
        rtol=1e-4,
    )


@pytest.mark.parametrize("cls", [models.Transformer, pytest.param(models.RWKV7, marks=pytest.mark.slow)])
def test_residual_branches_are_divided_by_the_depth(cls, data, quick_jit, random_params):
    base = small(cls)
    model = mup(base, base_depth=1)
    assert model.tensor_scales()["block_1", "mlp_output", "kernel"].depth == 2
    assert model.tensor_scales()["logits", "kernel"].depth == 1
    params = random_params(model, data, scale=0.2)
    expected = jax.tree.map(np.copy, params)
    for layer in ("block_0", "block_1"):
        for name in ("attention_output", "mixer_output", "mlp_output"):
            if name in expected[layer]:
                expected[layer][name] = {key: array / 2 for key, array in expected[layer][name].items()}
    np.testing.assert_allclose(
        quick_jit(model.apply)({"params": params}, *data), quick_jit(base.apply)({"params": expected}, *data), rtol=1e-4
    )


def test_initial_scales_of_blocks_are_those_of_the_base_depth(data, quick_jit):
    deep = small(models.Transformer, num_layers=4)

    def drawn(depth):
        model = mup(deep, base_depth=depth)
        return quick_jit(lambda: params_of(model, data)["block_0"]["mlp_hidden"])()

    base, own = drawn(1), drawn(4)
    np.testing.assert_allclose(base["kernel"], 2 * own["kernel"], rtol=1e-5)  # variance 2 / depth over the fan-in


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(UsageError, match="Transformer.parametrization must be one of standard, mup"):
        models.Transformer(parametrization="mUP")
    with pytest.raises(UsageError, match="needs LSTM.base_width"):
        models.LSTM(parametrization="mup")
    with pytest.raises(UsageError, match="Transformer.num_heads = 8 grows with the width and would be 0.5"):
        models.Transformer(parametrization="mup", base_width=16)
    with pytest.raises(UsageError, match="matching_heads"):
        models.OuterProductLSTM(parametrization="mup", base_width=1, size=32, matching_heads=1, token_layout="aligned")
