"""What a matrix can recall of pairs of keys and values, against what is known of linear memories.

Each pair is presented once, or many times, and then every key is asked for. A memory of K key dimensions recalls v + e,
and the mean square of e is that of a value times

- (N - 1) / K for sums of outer products of random unit keys: the interference of the other pairs;
- at least 1 - K / N for any linear map, because a matrix of rank K fits N random values no better than least squares.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.tasks.families import Recall

B, K, V = 400, 8, 4


def pairs(num_pairs):
    """Keys [B, N, K] as `Recall` draws them, and values [B, N, V] of variance 1."""
    family = Recall(num_pairs=num_pairs, dimensions=K)
    keys = jax.vmap(lambda key: family.draw_task(key).keys)(jax.random.split(jax.random.key(0), B))
    return np.asarray(keys, np.float64), np.random.default_rng(0).normal(size=(B, num_pairs, V))


def recall_error(keys, values, *, delta_rule, presentations=1):
    """The mean squared error of what is recalled for each key after all pairs were presented."""
    times = (1, presentations, 1)
    key, value = jnp.tile(keys, times)[:, :, None], jnp.tile(values, times)[:, :, None]
    no_decay = jnp.zeros(key.shape[:3])
    _, state = matrix_state.chunked(key, key, value, no_decay, (None, key) if delta_rule else None)
    recalled = np.einsum("bnk,bkv->bnv", keys, np.asarray(state)[:, 0])
    return np.mean((recalled - values) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("num_pairs", [4, 8, 16])
def test_a_sum_of_outer_products_has_the_interference_of_the_other_pairs(num_pairs):
    error = recall_error(*pairs(num_pairs), delta_rule=False)
    assert error == pytest.approx((num_pairs - 1) / K, rel=0.06)


def test_orthogonal_keys_are_recalled_exactly_up_to_as_many_as_the_key_has_dimensions():
    rotations = np.linalg.qr(np.random.default_rng(1).normal(size=(B, K, K)))[0]
    for delta_rule in (False, True):
        assert recall_error(rotations, pairs(K)[1], delta_rule=delta_rule) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("num_pairs", [4, 8, 16])
def test_no_delta_rule_beats_least_squares_and_many_presentations_come_near_it(num_pairs):
    keys, values = pairs(num_pairs)
    fits = np.einsum("bnk,bkv->bnv", keys, np.linalg.pinv(keys) @ values)
    bound = np.mean((fits - values) ** 2)
    assert bound == pytest.approx(max(0, 1 - K / num_pairs), abs=0.02)  # the known share, which random keys have
    once, often = (recall_error(keys, values, delta_rule=True, presentations=n) for n in (1, 32))
    assert bound - 1e-6 <= often < once
    # With up to K independent keys the corrections end (Kaczmarz); with more, the last ones presented win.
    assert often < (0.02 if num_pairs <= K // 2 else 0.7 * once if num_pairs <= K else once)


def test_a_delta_rule_recalls_half_as_many_pairs_as_dimensions_better_than_a_sum():
    keys, values = pairs(K // 2)
    assert recall_error(keys, values, delta_rule=True) < 0.8 * recall_error(keys, values, delta_rule=False)
