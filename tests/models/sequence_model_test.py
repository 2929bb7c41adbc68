"""What must hold for every sequence model and baseline."""

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from gpicl_flax import catalogue
from gpicl_flax.baselines import MAML, OnlineSGD
from gpicl_flax.models import LSTM, MLP, VSML, DeltaNet, OuterProductLSTM, Transformer, VSMLWithoutSymmetries

B, T, X, C = 2, 8, 5, 4
_TRANSFORMER = {"num_layers": 2, "num_heads": 2, "key_size": 4, "model_size": 12, "num_classes": C}
_DELTA_NET = {**_TRANSFORMER, "chunk_size": 3}
MODELS = {
    "transformer": Transformer(**_TRANSFORMER),
    "aligned_transformer": Transformer(**_TRANSFORMER, token_layout="aligned"),
    "matched_transformer": Transformer(**_TRANSFORMER, token_layout="aligned", matching_gain=2.0, matching_layers=2),
    "lstm": LSTM(hidden_size=6, num_classes=C),
    "aligned_lstm": LSTM(hidden_size=6, num_classes=C, token_layout="aligned"),
    "outer_product_lstm": OuterProductLSTM(size=6, num_heads=2, num_classes=C),
    "aligned_outer_product_lstm": OuterProductLSTM(size=6, num_heads=2, num_classes=C, token_layout="aligned"),
    "matched_outer_product_lstm": OuterProductLSTM(size=13, num_classes=C, token_layout="aligned", matching_heads=1),
    "vsml": VSML(hidden_size=4, num_classes=C),
    "deep_vsml": VSML(num_layers=3, layer_size=3, hidden_size=4, num_classes=C),
    "aligned_deep_vsml": VSML(num_layers=2, layer_size=3, hidden_size=4, num_classes=C, token_layout="aligned"),
    "vsml_without_symmetries": VSMLWithoutSymmetries(grid_size=2, hidden_size=4, num_classes=C),
    "aligned_vsml_without_symmetries": VSMLWithoutSymmetries(
        grid_size=2, hidden_size=4, num_classes=C, token_layout="aligned"
    ),
    "delta_net": DeltaNet(**_DELTA_NET),
    "recurrent_delta_net": DeltaNet(**_DELTA_NET, form="recurrent"),
    "aligned_delta_net": DeltaNet(**_DELTA_NET, token_layout="aligned"),
    "matched_delta_net": DeltaNet(**_DELTA_NET, token_layout="aligned", matching_heads=1, matching_layers=2),
    "mlp": MLP(hidden_size=6, num_classes=C),
    "online_sgd": OnlineSGD(hidden_sizes=(6,), num_classes=C, inner_optimizer=optax.sgd(0.1)),
    "online_adam": OnlineSGD(num_classes=C, inner_optimizer=optax.adam(0.1, eps=0.1)),
    "maml": MAML(hidden_sizes=(6,), num_classes=C, inner_optimizer=optax.adam(0.1, eps=0.1, eps_root=1e-2)),
}
NO_CONTEXT = {"mlp"}


def test_all_of_them_are_here():
    assert {type(model) for model in MODELS.values()} == set(catalogue.MODELS)


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model_and_logits(name, quick_jit):
    model = MODELS[name]
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(B, T, X)).astype(np.float32), rng.integers(C, size=(B, T)).astype(np.int32)
    params = nn.unbox(quick_jit(model.init)(jax.random.key(0), inputs, labels))
    # As after some training: the zeros of a matched start let the first input pass unseen.
    params = jax.tree.map(lambda x: x + 0.01 * rng.normal(size=x.shape).astype(np.float32), params)
    rngs = {"learner": jax.random.key(1)}
    apply = jax.jit(lambda inputs, labels: model.apply(params, inputs, labels, rngs=rngs))
    return inputs, labels, apply


def changes(after, before):
    """The largest change of the logits at each position, [B, T]."""
    return np.abs(after - before).max(axis=-1)


def test_labels_do_not_leak_to_their_own_or_earlier_positions(name, model_and_logits):
    inputs, labels, apply = model_and_logits
    before = apply(inputs, labels)
    for position in range(T):
        changed = labels.copy()
        changed[:, position] = (changed[:, position] + 1) % C
        change = changes(apply(inputs, changed), before)
        assert (change[:, : position + 1] == 0).all()
        # ... and are seen by every later one
        assert ((change[:, position + 1 :] > 0) == (name not in NO_CONTEXT)).all()


def test_inputs_are_seen_from_their_own_position_on(name, model_and_logits):
    inputs, labels, apply = model_and_logits
    before = apply(inputs, labels)
    for position in range(T):
        changed = inputs.copy()
        changed[:, position] += 1
        change = changes(apply(changed, labels), before)
        assert (change[:, :position] == 0).all() and (change[:, position] > 0).all()
        assert ((change[:, position + 1 :] > 0) == (name not in NO_CONTEXT)).all()


def test_sequences_of_a_batch_do_not_see_each_other(model_and_logits):
    inputs, labels, apply = model_and_logits
    change = changes(apply(inputs + [[[1]], [[0]]], (labels + [[1], [0]]) % C), apply(inputs, labels))
    assert (change[0] > 0).all() and (change[1] == 0).all()
