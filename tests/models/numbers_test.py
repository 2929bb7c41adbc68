"""Models that predict numbers: their tokens, their outputs, and single steps."""

import jax
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import (
    LSTM,
    MLP,
    VSML,
    DeltaNet,
    Hybrid,
    OuterProductLSTM,
    Transformer,
    VSMLWithoutSymmetries,
    sizes,
)
from gpicl_flax.references import MAML, OnlineSGD

B, T, X = 2, 6, 3
BACKBONE = {"num_layers": 1, "num_heads": 2, "key_size": 4, "model_size": 12}
MODELS = {
    "transformer": Transformer(**BACKBONE, token_layout="aligned", matching_gain=1.0),
    "lstm": LSTM(hidden_size=6),
    "outer_product_lstm": OuterProductLSTM(size=8, num_heads=2),
    "delta_net": DeltaNet(**BACKBONE, chunk_size=3),
    "hybrid": Hybrid(num_layers=2, model_size=12, pattern=[DeltaNet(num_heads=2, key_size=4, chunk_size=3)]),
}


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, X)).astype(np.float32), rng.normal(size=(B, T)).astype(np.float32)


@pytest.mark.parametrize("predicts", ["numbers", "normals"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "lstm")) for n in MODELS])
def test_numbers_are_read_whole_and_token_by_token(name, predicts, random_params, quick_jit):
    model = MODELS[name].clone(predicts=predicts)
    inputs, numbers = data()
    parts = model.token_parts(inputs, numbers)
    np.testing.assert_array_equal(parts[-1][:, 1:, 0], numbers[:, :-1])
    assert parts[-1].shape == (B, T, 1) and not parts[-1][:, 0].any()
    params = {"params": random_params(model, (inputs, numbers))}
    predictions = np.asarray(quick_jit(model.apply)(params, inputs, numbers))
    assert predictions.shape == (B, T, {"numbers": 1, "normals": 2}[predicts])

    # A number is seen only after its own position.
    changed = numbers.copy()
    changed[:, 3] += 1
    others = np.asarray(quick_jit(model.apply)(params, inputs, changed))
    np.testing.assert_allclose(others[:, :4], predictions[:, :4], rtol=1e-5, atol=1e-6)
    assert np.abs(others[:, 4:] - predictions[:, 4:]).max() > 1e-3

    _, state = model.apply(params, parts, 4, method="prefill")
    one, state = model.apply(params, [x[:, 4:5] for x in parts], 4, state, method="decode")
    np.testing.assert_allclose(one[:, 0], predictions[:, 4], rtol=1e-4, atol=1e-5)
    answer = model.apply(params, state, [x[:, 5:] for x in parts], 5, method="answer_from")
    np.testing.assert_allclose(answer[:, 0], predictions[:, 5], rtol=1e-4, atol=1e-5)
    context = model.apply(params, inputs, numbers, 5, method="encode")
    answered = model.apply(params, context, inputs[:, 5:], method="answer")
    np.testing.assert_allclose(answered[:, 0], predictions[:, 5], rtol=1e-4, atol=1e-5)


def test_the_mlp_predicts_numbers_without_a_context(random_params):
    model = MLP(hidden_size=4, predicts="normals")
    params = {"params": random_params(model, data())}
    assert model.apply(params, *data()).shape == (B, T, 2)


def test_sizes_are_those_of_the_tokens_and_outputs():
    classes, number, normal = (
        sizes(LSTM(hidden_size=8, num_classes=10, predicts=predicts), X, T)["parameters"]
        for predicts in ("classes", "numbers", "normals")
    )
    assert classes - number == 9 * 8 + 9 * (8 + 1) and normal - number == 8 + 1


@pytest.mark.parametrize("cls", [VSML, VSMLWithoutSymmetries, OnlineSGD, MAML])
def test_some_models_predict_classes_only(cls):
    with pytest.raises(UsageError, match=f"{cls.__name__}.predicts must be one of classes, not 'numbers'"):
        cls(predicts="numbers")


def test_the_matching_initialisation_of_the_outer_product_lstm_is_for_classes():
    settings = {"size": 32, "matching_heads": 1, "token_layout": "aligned"}
    OuterProductLSTM(**settings)
    with pytest.raises(UsageError, match="matching_heads is for classes"):
        OuterProductLSTM(**settings, predicts="numbers")


def test_a_hidden_class_has_a_token_of_zeros():
    labels = np.array([[2, -1, 3, 0, 1, 2]])
    shown = np.asarray(LSTM(num_classes=4).token_parts(np.zeros((1, T, X)), labels)[-1])
    np.testing.assert_array_equal(shown[0, 1:], np.eye(5)[[2, 4, 3, 0, 1]][:, :4])
    assert jax.numpy.issubdtype(shown.dtype, np.floating)
