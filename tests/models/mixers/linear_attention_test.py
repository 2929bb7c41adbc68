"""Linear attention against numpy float64, written from the equations."""

import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LinearAttention, StateSize

SIZES = {"num_layers": 2, "num_heads": 3, "key_size": 4, "model_size": 10, "num_classes": 4, "chunk_size": 3}


@pytest.fixture
def expected(reference, maths):
    def make(feature_map):
        def mix(w, y):
            query, key, value = maths.queries_keys_values(w, y)
            if feature_map == "identity":
                return maths.rms_norm(maths.loops(query, key, value, np.ones_like(key)), w["read_norm"])
            query, key = (np.where(x > 0, x + 1, np.exp(x)) for x in (query, key))
            weights = np.tril(np.einsum("bthk,bshk->bhts", query, key))
            return np.einsum("bhts,bshv->bthv", weights / weights.sum(-1, keepdims=True), value)

        return reference(mix)

    return make


@pytest.mark.parametrize(
    ("feature_map", "settings"),
    [
        pytest.param("elu", {}, marks=pytest.mark.slow),
        ("identity", {"form": "recurrent", "value_size": 3}),
        ("elu", {"short_convolution": True, "value_size": 5}),
    ],
)
def test_forward_pass_is_that_of_the_equations(check_forward, expected, feature_map, settings):
    check_forward(LinearAttention(**SIZES, feature_map=feature_map, **settings), expected(feature_map))


@pytest.mark.parametrize("feature_map", ["elu", "identity"])
def test_gradients_are_those_of_the_equations(data, random_params, check_gradients, expected, feature_map):
    model = LinearAttention(**SIZES | {"num_layers": 1}, feature_map=feature_map)
    check_gradients(model, random_params(model, data), data, expected(feature_map))


def test_state_size():
    assert LinearAttention(**SIZES).state_size(5, 7) == StateSize(paper=2 * 3 * 16, exact=2 * 3 * (16 + 4))
    model = LinearAttention(**SIZES, feature_map="identity", value_size=3)
    assert model.state_size(5, 7) == StateSize(paper=2 * 3 * 12, exact=2 * 3 * 12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"feature_map": "relu"}, "LinearAttention.feature_map must be one of elu, identity, not 'relu'"),
        ({"form": "x"}, "LinearAttention.form must be one of chunked, recurrent, not 'x'"),
        ({"value_size": 0}, "LinearAttention.value_size must be a positive integer"),
        ({"matching_heads": 1, "token_layout": "aligned"}, "matching_heads needs LinearAttention.feature_map = 'ident"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        LinearAttention(**settings)
