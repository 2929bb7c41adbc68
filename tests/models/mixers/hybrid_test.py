"""Hybrids: blocks are those of their models, in turn, and nothing that is set for a part is ignored."""

import pathlib

import jax
import numpy as np
import pytest

from gpicl_flax import config
from gpicl_flax.errors import UsageError
from gpicl_flax.models import (
    LSTM,
    RGLRU,
    RWKV7,
    DeltaNet,
    Hybrid,
    Mamba2,
    SlidingWindowTransformer,
    StateSize,
    Transformer,
)
from gpicl_flax.runs.run import Run

GRIFFIN = str(pathlib.Path(__file__).parents[3] / "gin/griffin.gin")
HEADS = {"num_heads": 3, "key_size": 4}
SIZES = {"num_layers": 3, "model_size": 10, "num_classes": 4}


@pytest.mark.slow
def test_a_pattern_of_one_model_is_that_model(data, random_params, quick_jit):
    part = RWKV7(**HEADS, channel_mix=True)
    alone, hybrid = part.clone(**SIZES | {"num_layers": 2}), Hybrid(**SIZES | {"num_layers": 2}, pattern=[part])
    shapes = jax.eval_shape(alone.init, jax.random.key(0), *data)
    assert jax.eval_shape(hybrid.init, jax.random.key(0), *data) == shapes
    params = {"params": random_params(alone, data)}
    np.testing.assert_array_equal(quick_jit(alone.apply)(params, *data), quick_jit(hybrid.apply)(params, *data))
    assert hybrid.state_size(5, 7) == alone.state_size(5, 7)


def test_the_first_block_starts_matched_if_its_model_does(data, quick_jit):
    settings = {"model_size": 10, "num_classes": 4, "token_layout": "aligned", "num_layers": 1}
    part = DeltaNet(**HEADS, token_layout="aligned", matching_heads=1)
    expected, found = (
        quick_jit(lambda *data, model=model: model.init(jax.random.key(0), *data)["params"]["embedding"])(*data)
        for model in (part.clone(**settings), Hybrid(**settings, pattern=[part, RGLRU()]))
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_blocks_are_those_of_the_pattern_in_turn(data):
    pattern = [RGLRU(**HEADS), SlidingWindowTransformer(num_heads=2, key_size=5, window=3)]
    model = Hybrid(**SIZES, pattern=pattern)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *data)["params"]
    assert ["decay_gate" in shapes[f"block_{layer}"] for layer in range(3)] == [True, False, True]
    assert shapes["block_1"]["key"]["kernel"].value.shape == (10, 2, 5)
    # Two vectors and their convolutions; keys and values of three positions, of which the paper counts K a position.
    assert model.state_size(5, 7) == StateSize(paper=2 * 12 + 3 * 5, exact=2 * 4 * 12 + 2 * 3 * 2 * 5)


def test_a_later_part_takes_the_first_values_of_its_kind(data):
    pattern = [RGLRU(**HEADS), RWKV7(**HEADS), RWKV7(num_heads=2, key_size=4), RWKV7(**HEADS)]
    shapes = jax.eval_shape(Hybrid(**SIZES | {"num_layers": 4}, pattern=pattern).init, jax.random.key(0), *data)
    found = ["value_residual_up" in shapes["params"][f"block_{layer}"] for layer in range(4)]
    assert found == [False, False, False, True]


def test_all_parts_compute_in_the_type_of_recurrences():
    model = Hybrid(dtype="bfloat16", pattern=[SlidingWindowTransformer(), RGLRU()])
    for layer in (0, 1):
        for part in model.block_parts(layer):
            assert (part.dtype, part.backward_dtype) == ("float32", "bfloat16")


def test_griffin_is_a_gin_file():
    model = config.parse([GRIFFIN], ["RGLRU.num_heads = 4"]).resolve(Run)[0].model
    kinds = [RGLRU, RGLRU, SlidingWindowTransformer]
    assert [type(model.part(layer)) for layer in range(6)] == 2 * kinds
    assert model.part(4).num_heads == 4 and model.part(4).num_layers == 6


def test_parts_of_one_model_differ_by_a_scope():
    bindings = [
        "Hybrid.pattern = [@near/SlidingWindowTransformer(), @SlidingWindowTransformer()]",
        "near/SlidingWindowTransformer.window = 3",
    ]
    model = config.parse([GRIFFIN], bindings).resolve(Run)[0].model
    assert [part.window for part in model.pattern] == [3, 12]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pattern": []}, "Hybrid.pattern must name a model"),
        ({"pattern": "RGLRU"}, "Hybrid.pattern must be of type list or tuple, not 'RGLRU'"),
        ({"pattern": [LSTM()]}, r"Hybrid.pattern\[0\] must be of type Backbone, not @LSTM"),
        ({"pattern": [RGLRU(), Hybrid()]}, r"Hybrid.pattern\[1\] must be of type Backbone, not @Hybrid"),
        ({"pattern": [RGLRU]}, r"Hybrid.pattern\[0\] must be of type Backbone, not @RGLRU"),
        ({"pattern": [RGLRU(num_layers=3)]}, "RGLRU.num_layers = 3 has no effect in a hybrid: set Hybrid.num_layers"),
        (
            {"pattern": [RGLRU(dtype="bfloat16")]},
            "RGLRU.dtype = 'bfloat16' has no effect in a hybrid: set",
        ),
        (
            {"pattern": [Transformer(max_length=9)]},
            "max_length = 9 has no effect in a hybrid: leave it out",
        ),
        ({"pattern": [DeltaNet(matching_heads=1, token_layout="aligned")]}, "DeltaNet.token_layout = 'aligned' has no"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Hybrid(**settings)


def test_a_part_may_repeat_what_the_hybrid_determines():
    assert Hybrid(model_size=12, pattern=[RGLRU(model_size=12)]).part(0).model_size == 12


def test_a_part_in_its_own_block_has_no_mlp():
    model = Hybrid(num_layers=2, pattern=[Mamba2(own_block=True), SlidingWindowTransformer()])
    assert [len(model.block_parts(layer)) for layer in (0, 1)] == [1, 2]
