"""Gradients in bfloat16 are those in float32, up to what bfloat16 rounds, for inputs of any scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
from gpicl_flax.references import MAML

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
FURTHER = (
    "delta net", "outer-product lstm",
    "matched transformer", "matched outer-product lstm", "vsml", "deep vsml", "vsml without symmetries",
    "step-by-step delta net", "matched delta net", "linear attention", "retnet", "mamba-2", "mlstm", "kda", "gla",
    "rwkv-7", "rg-lru", "hybrid",
    "sliding-window transformer", "maml",
)  # fmt: skip

# The gradient of a parameter is a sum of products of two numbers, each of which bfloat16 rounds by up to 2^-9. Without
# cancellation that is 2^-8 at most, and the bound has a factor of two for it. Transformers also round the activations
# between some ten operations, which layer norm keeps from being amplified.
BOUND = dict.fromkeys(MODELS, 2**-7) | dict.fromkeys(
    ("transformer", "matched transformer", "sliding-window transformer"), 2**-5
)


def distance(found, expected):
    """The norm of the difference of two trees over that of the second."""
    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), found, expected)
    return float(optax.tree.norm(difference) / optax.tree.norm(expected))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in (*FURTHER, "transformer") else name for name in MODELS],
)
def test_gradients_in_bfloat16_are_those_in_float32(name, data, quick_jit):
    model, (inputs, labels) = MODELS[name], data
    params = quick_jit(model.init)(jax.random.key(0), *data)

    def gradient(model):
        def loss(params, inputs):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, inputs, labels), labels).mean()

        return quick_jit(jax.grad(loss))

    expected, found = gradient(model), gradient(model.clone(dtype="bfloat16"))
    for scale in (1, 1000):
        error = distance(found(params, scale * inputs), expected(params, scale * inputs))
        assert 0 < error < BOUND[name], f"inputs x {scale}: {error:.1%}"


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
