"""The MLP against a forward pass in numpy float64."""

import jax
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import MLP, StateSize, count_parameters


def reference(params, inputs, labels):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = np.maximum(inputs @ p["mlp_0"]["kernel"] + p["mlp_0"]["bias"], 0)
    x = np.maximum(x @ p["mlp_1"]["kernel"] + p["mlp_1"]["bias"], 0)
    return x @ p["logits"]["kernel"] + p["logits"]["bias"]


@pytest.fixture
def model():
    return MLP(num_classes=4, hidden_size=6)


def test_forward_pass_and_gradients_are_those_of_the_equations(data, random_params, check_gradients, model, quick_jit):
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    np.testing.assert_allclose(logits, reference(params, *data), rtol=1e-4, atol=1e-5)
    check_gradients(model, params, data, reference)


def test_logits_depend_on_the_input_of_their_position_alone(data, random_params, model, quick_jit):
    inputs, labels = data
    params = {"params": random_params(model, data)}
    apply = quick_jit(model.apply)
    before = apply(params, inputs, labels)
    np.testing.assert_array_equal(apply(params, inputs, 3 - labels), before)
    inputs = inputs.copy()
    inputs[:, 2] += 1
    changed = np.abs(apply(params, inputs, labels) - before).max(axis=-1) > 0
    np.testing.assert_array_equal(changed, np.broadcast_to(np.arange(labels.shape[1]) == 2, labels.shape))


def test_bfloat16_activations_stay_near_and_logits_are_float32(data, random_params, quick_jit):
    model = MLP(num_classes=4, hidden_size=6, dtype="bfloat16")
    params = random_params(model, data)
    logits = quick_jit(model.apply)({"params": params}, *data)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(params, *data), atol=0.05)


def test_sizes():
    assert MLP().state_size(196, 100) == StateSize(paper=0, exact=0)
    assert count_parameters(MLP(hidden_size=64), 196, 1) == 197 * 64 + 65 * 64 + 65 * 10


def test_widths_that_are_not_positive_are_refused():
    with pytest.raises(UsageError, match="MLP.hidden_size must be a positive integer"):
        MLP(hidden_size=0)
