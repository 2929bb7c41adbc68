"""With dtype = 'bfloat16', every model computes what it says in bfloat16, and stays near float32 at any scale."""

import collections
import pathlib
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import (
    GLA,
    KDA,
    LSTM,
    MLP,
    MLSTM,
    RGLRU,
    RWKV7,
    VSML,
    DeltaNet,
    Hybrid,
    LinearAttention,
    Mamba2,
    OuterProductLSTM,
    RetNet,
    SlidingWindowTransformer,
    Transformer,
    VSMLWithoutSymmetries,
)
from gpicl_flax.models.products import product
from gpicl_flax.references import MAML, OnlineSGD
from gpicl_flax.runs import model_zoo

C = 4
HEADS = {"num_classes": C, "num_heads": 2, "key_size": 8, "model_size": 16}
ALIGNED = {"token_layout": "aligned", "matching_heads": 1}
TRANSFORMER = {"max_length": 7, "num_layers": 2}
MODELS = {
    "transformer": Transformer(**HEADS, **TRANSFORMER),
    "matched transformer": Transformer(**HEADS, **TRANSFORMER, **ALIGNED, matching_gain=2.0),
    "lstm": LSTM(num_classes=C, hidden_size=16),
    "outer-product lstm": OuterProductLSTM(num_classes=C, size=8, num_heads=2),
    "matched outer-product lstm": OuterProductLSTM(num_classes=C, size=12, **ALIGNED),
    "vsml": VSML(num_classes=C, hidden_size=8),
    "deep vsml": VSML(num_classes=C, num_layers=2, layer_size=2, hidden_size=8),
    "vsml without symmetries": VSMLWithoutSymmetries(num_classes=C, grid_size=3, hidden_size=8),
    "delta net": DeltaNet(**HEADS, num_layers=2, chunk_size=4),
    "step-by-step delta net": DeltaNet(**HEADS, num_layers=2, form="recurrent"),
    "matched delta net": DeltaNet(**HEADS, num_layers=2, chunk_size=4, **ALIGNED),
    "linear attention": LinearAttention(**HEADS, num_layers=2, chunk_size=4),
    "retnet": RetNet(**HEADS, num_layers=2, chunk_size=4),
    "mamba-2": Mamba2(**HEADS, num_layers=2, chunk_size=4),
    "mlstm": MLSTM(**HEADS, num_layers=2, chunk_size=4),
    "kda": KDA(**HEADS, num_layers=2, chunk_size=4),
    "gla": GLA(**HEADS, num_layers=2, chunk_size=4),
    "rwkv-7": RWKV7(**HEADS, num_layers=2, chunk_size=4, channel_mix=True),
    "rg-lru": RGLRU(**HEADS, num_layers=2),
    "sliding-window transformer": SlidingWindowTransformer(**HEADS, num_layers=2, window=3),
    "hybrid": Hybrid(
        num_classes=C,
        num_layers=3,
        model_size=16,
        pattern=[
            RGLRU(num_heads=2, key_size=8),
            DeltaNet(num_heads=2, key_size=8),
            SlidingWindowTransformer(num_heads=2),
        ],
    ),
    "mlp": MLP(num_classes=C, hidden_size=16),
    "maml": MAML(num_classes=C, hidden_sizes=(16,)),
}
QUICK = ("mlp",)

# The gradient of a parameter is a sum of products of two numbers, each of which bfloat16 rounds by up to 2^-9. Without
# cancellation that is 2^-8 at most, and the bound has a factor of two for it. Transformers also round the activations
# between some ten operations, which layer norm keeps from being amplified. The predictions of MAML come from parameters
# that such gradients moved.
IN_BFLOAT16 = ("transformer", "matched transformer", "sliding-window transformer")
BOUND = dict.fromkeys(MODELS, 2**-7) | dict.fromkeys(IN_BFLOAT16, 2**-5)


def distance(found, expected):
    """The norm of the difference of two trees over that of the second."""
    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), found, expected)
    return float(optax.tree.norm(difference) / optax.tree.norm(expected))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def test_outputs_and_gradients_in_bfloat16_are_those_in_float32(name, data, quick_jit):
    model, (inputs, labels) = MODELS[name], data
    params = quick_jit(model.init)(jax.random.key(0), *data)

    def outputs_and_gradient(model):
        def loss(params, inputs):
            outputs = model.apply(params, inputs, labels)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(), outputs

        gradient = quick_jit(jax.grad(loss, has_aux=True))
        return lambda inputs: gradient(params, inputs)[::-1]

    expected, found = outputs_and_gradient(model), outputs_and_gradient(model.clone(dtype="bfloat16"))
    for scale in (1, 1000):
        (expected_outputs, expected_gradient), (outputs, gradient) = expected(scale * inputs), found(scale * inputs)
        error = distance(gradient, expected_gradient)
        assert 0 < error < BOUND[name], f"inputs x {scale}: {error:.1%}"
        assert outputs.dtype == np.float32
        error = distance(outputs, expected_outputs)
        if name in (*IN_BFLOAT16, "maml"):
            assert 0 < error < BOUND[name], f"inputs x {scale}: {error:.1%}"
        else:  # nothing forward is rounded
            assert error < 1e-6, f"inputs x {scale}: {error:.1%}"


def products(function, *arguments):
    """How many matrix products the traced program has, by the types of their operands."""

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for part in jax.extend.core.jaxprs_in_params(equation.params):
                yield from equations(part)

    found = collections.Counter()
    for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            found[" ".join(sorted({variable.aval.dtype.name for variable in equation.invars}))] += 1
    return found


@pytest.mark.parametrize(
    "name",
    [name if name in (*QUICK, "transformer") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def test_the_traced_program_has_the_products_that_the_model_says(name, data):
    model = MODELS[name].clone(dtype="bfloat16")
    params = jax.eval_shape(model.init, jax.random.key(0), *data)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}

    def outputs(params):
        return model.apply(params, *data)

    forward = products(outputs, params)
    backward = products(jax.grad(lambda params: outputs(params).sum()), params) - forward
    assert model.compute_dtype == ("bfloat16" if name in IN_BFLOAT16 else "float32")
    assert backward["bfloat16"] > 0  # so `dtype` is no setting that is accepted and ignored
    if model.compute_dtype == "bfloat16":
        assert forward["bfloat16"] > 0 and forward["float32"] == 1  # that of the read-out
    elif name != "maml":  # which has gradients in its forward pass
        assert set(forward) == {"float32"}
    in_float32 = products(lambda params: model.clone(dtype="float32").apply(params, *data), params)
    assert set(in_float32) == {"float32"}


def test_online_sgd_rounds_the_gradients_of_hidden_layers_and_refuses_what_would_have_no_effect(data, quick_jit):
    def outputs(**settings):
        model = OnlineSGD(num_classes=C, inner_optimizer=optax.sgd(0.1), **settings)
        return quick_jit(lambda: model.apply({}, *data, rngs={"learner": jax.random.key(0)}))()

    assert 0 < distance(outputs(hidden_sizes=(8,), dtype="bfloat16"), outputs(hidden_sizes=(8,))) < 2**-7
    with pytest.raises(UsageError, match="OnlineSGD.dtype = 'bfloat16' has no effect without OnlineSGD.hidden_sizes"):
        OnlineSGD(num_classes=C, dtype="bfloat16")


def test_every_model_is_tested_here_and_the_docs_say_what_it_computes_in():
    assert {type(model) for model in MODELS.values()} | {OnlineSGD} == set(model_zoo.MODELS)
    text = (pathlib.Path(__file__).parents[2] / "docs/models.md").read_text()
    table = text.partition("\n## bfloat16\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (\w+) \|", table, re.M)
    said = {name: dtype for names, dtype in rows for name in re.findall(r"`(\w+)`", names)}
    expected = {type(model): model.clone(dtype="bfloat16").compute_dtype for model in MODELS.values()}
    assert said == {cls.__name__: dtype for cls, dtype in expected.items()} | {"OnlineSGD": "float32"}


def test_only_the_gradient_of_the_kernel_is_rounded():
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 5, 4), (4, 6), (3, 5, 6))
    )
    y, backward = jax.vjp(lambda *arguments: product(*arguments, "bfloat16"), x, kernel)
    expected_y, expected_backward = jax.vjp(lambda *arguments: product(*arguments, "float32"), x, kernel)
    np.testing.assert_array_equal(y, expected_y)
    (x_gradient, kernel_gradient), (expected_x, expected_kernel) = backward(cotangent), expected_backward(cotangent)
    np.testing.assert_allclose(x_gradient, expected_x, rtol=1e-5, atol=1e-6)
    magnitudes = np.einsum("btn,btm->nm", np.abs(x), np.abs(cotangent))
    assert 0 < (np.abs(kernel_gradient - expected_kernel) / magnitudes).max() < 2**-8
