"""Stateful models read a context token by token as they read it at once."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import (
    GLA,
    KDA,
    LSTM,
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

B, T, X, C = 2, 5, 3, 4
HEADS = {"num_heads": 2, "key_size": 4}
_TRANSFORMER = {**HEADS, "num_layers": 1, "model_size": 12, "num_classes": C}
MODELS = {
    "transformer": Transformer(**_TRANSFORMER, token_layout="aligned"),
    "lstm": LSTM(hidden_size=6, num_classes=C),
    "outer_product_lstm": OuterProductLSTM(size=4, num_heads=2, num_classes=C),
    "vsml": VSML(num_layers=2, layer_size=3, hidden_size=4, num_classes=C),
    "vsml_without_symmetries": VSMLWithoutSymmetries(grid_size=2, hidden_size=4, num_classes=C),
    "delta_net": DeltaNet(**_TRANSFORMER, chunk_size=3),
    "linear_attention": LinearAttention(**_TRANSFORMER, chunk_size=3),
    "ret_net": RetNet(**_TRANSFORMER, chunk_size=3, short_convolution=True),
    "mamba2": Mamba2(**_TRANSFORMER, chunk_size=3),
    "mlstm": MLSTM(**_TRANSFORMER, chunk_size=3),
    "kda": KDA(**_TRANSFORMER, chunk_size=3, value_size=3, short_convolution=True),
    "gla": GLA(**_TRANSFORMER, chunk_size=3, value_size=3),
    "rwkv7": RWKV7(**_TRANSFORMER | {"num_layers": 2}, chunk_size=3, short_convolution=True, channel_mix=True),
    "rg_lru": RGLRU(**_TRANSFORMER),
    "sliding_window_transformer": SlidingWindowTransformer(**_TRANSFORMER, window=2, short_convolution=True),
    "hybrid": Hybrid(
        num_layers=2,
        model_size=12,
        num_classes=C,
        pattern=[RGLRU(**HEADS), SlidingWindowTransformer(**HEADS, window=2)],
    ),
}


# Their passes are much like those of the others.
FURTHER = (
    "ret_net", "mamba2", "mlstm", "gla", "kda", "rg_lru", "sliding_window_transformer", "hybrid",
    "vsml_without_symmetries",
)  # fmt: skip


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in FURTHER)) for name in MODELS])
def model(request):
    return MODELS[request.param]


@pytest.fixture
def params_and_parts(model, random_params):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T)).astype(np.int32)
    return jax.device_put({"params": random_params(model, data)}), model.token_parts(*data)


def test_a_prefill_and_single_steps_are_one_prefill_of_all(model, params_and_parts, quick_jit):
    params, parts = params_and_parts
    prefill = quick_jit(lambda parts, length: model.apply(params, parts, length, method="prefill"))
    decode = quick_jit(lambda parts, length, state: model.apply(params, parts, length, state, method="decode"))
    expected, expected_state = prefill(parts, T)
    for length in (0, 1, 3, T - 1):
        logits, state = prefill(parts, length)
        np.testing.assert_allclose(logits[:, :length], expected[:, :length], rtol=1e-4, atol=1e-5)
        for position in range(length, T):
            logits, state = decode([x[:, position : position + 1] for x in parts], position, state)
            np.testing.assert_allclose(logits[:, 0], expected[:, position], rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected_state)


def test_queries_leave_the_state_and_each_other_alone(model, params_and_parts, quick_jit):
    params, parts = params_and_parts
    _, state = quick_jit(lambda parts: model.apply(params, parts, 3, method="prefill"))(parts)
    decode = quick_jit(lambda parts, state: model.apply(params, parts, 3, state, method="decode"))
    answer_from = quick_jit(lambda state, parts: model.apply(params, state, parts, 3, method="answer_from"))
    together = answer_from(state, [x[:, :4] for x in parts])
    for query in range(4):
        alone, _ = decode([x[:, query : query + 1] for x in parts], state)
        np.testing.assert_allclose(together[:, query], alone[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_state_without_room_for_a_token_is_refused():
    model = MODELS["transformer"]
    inputs, labels = np.zeros((1, 2, X), np.float32), np.zeros((1, 2), np.int32)
    params = nn.unbox(model.init(jax.random.key(0), inputs, labels))
    parts = model.token_parts(inputs, labels)
    _, state = model.apply(params, parts, 2, method="prefill")
    with pytest.raises(UsageError, match="room for 2 tokens and holds 2"):
        model.apply(params, [x[:, :1] for x in parts], 2, state, method="decode")
