"""What must hold for every sequence model."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.models import LSTM, Transformer

B, T, X, C = 2, 8, 5, 4
MODELS = {
    "transformer": Transformer(num_layers=2, num_heads=2, key_size=4, model_size=12, num_classes=C),
    "aligned_transformer": Transformer(
        num_layers=2, num_heads=2, key_size=4, model_size=12, num_classes=C, token_layout="aligned", matching_gain=2.0
    ),
    "lstm": LSTM(hidden_size=6, num_classes=C),
    "aligned_lstm": LSTM(hidden_size=6, num_classes=C, token_layout="aligned"),
}


@pytest.fixture(params=MODELS)
def model_and_logits(request):
    model = MODELS[request.param]
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T)).astype(np.int32)
    params = nn.unbox(model.init(jax.random.key(0), inputs, labels))
    apply = jax.jit(lambda inputs, labels: model.apply(params, inputs, labels))
    return inputs, labels, apply


def test_labels_do_not_leak_to_their_own_or_earlier_positions(model_and_logits):
    inputs, labels, apply = model_and_logits
    before = apply(inputs, labels)
    for position in range(T):
        changed = labels.copy()
        changed[:, position] = (changed[:, position] + 1) % C
        after = apply(inputs, changed)
        np.testing.assert_array_equal(after[:, : position + 1], before[:, : position + 1])
        if position + 1 < T:  # ... and are seen by every later one
            assert (np.abs(after[:, position + 1 :] - before[:, position + 1 :]).max(axis=-1) > 0).all()


def test_inputs_are_seen_from_their_own_position_on(model_and_logits):
    inputs, labels, apply = model_and_logits
    before = apply(inputs, labels)
    for position in range(T):
        changed = inputs.copy()
        changed[:, position] += 1
        after = apply(changed, labels)
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        assert (np.abs(after[:, position:] - before[:, position:]).max(axis=-1) > 0).all()


def test_sequences_of_a_batch_do_not_see_each_other(model_and_logits):
    inputs, labels, apply = model_and_logits
    np.testing.assert_allclose(apply(inputs[1:], labels[1:])[0], apply(inputs, labels)[1], rtol=1e-5, atol=1e-6)
