"""The parts of a state, against the exact size, which the audit holds, and against sizes worked out by hand."""

import pytest

from gpicl_flax import models
from gpicl_flax.runs import model_zoo

X, T = 7, 6


@pytest.mark.parametrize("cls", model_zoo.MODELS)
def test_the_parts_are_the_exact_state(cls):
    model = cls(max_length=T) if cls is models.Transformer else cls()
    assert sum(models.state_parts(model, X, T).values()) == model.state_size(X, T).exact


SMALL = {"num_layers": 2, "num_heads": 2, "key_size": 3, "model_size": 8}


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (models.Transformer(**SMALL, max_length=T), {"keys": 2 * T * 6, "values": 2 * T * 6}),
        (models.LSTM(hidden_size=5), {"hidden": 5, "cell": 5}),
        (models.DeltaNet(**SMALL, short_convolution=True), {"matrix": 2 * 2 * 9, "convolution": 2 * 3 * 18}),
        (models.LinearAttention(**SMALL), {"matrix": 2 * 2 * 9, "normaliser": 2 * 6}),
        (models.Mamba2(**SMALL), {"matrix": 2 * 2 * 3 * 8, "convolution": 2 * 3 * (2 * 3 + 2 * 8)}),
        (models.MLSTM(**SMALL), {"matrix": 36, "normaliser": 12, "stabilizer": 4}),
        (models.RWKV7(**SMALL), {"matrix": 36, "token shift": 16}),
        (models.RWKV7(**SMALL, channel_mix=True), {"matrix": 36, "token shift": 16, "channel token shift": 16}),
        (models.RGLRU(**SMALL), {"vector": 12, "convolution": 36}),
        (models.SlidingWindowTransformer(**SMALL, window=4), {"keys": 48, "values": 48}),
        (models.MLP(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parts_have_the_names_and_sizes_of_what_the_model_keeps(model, parts):
    assert models.state_parts(model, X, T) == parts
