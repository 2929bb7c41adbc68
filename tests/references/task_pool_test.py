"""Sums over a pool of tasks against numpy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.references.task_pool import sum_over_tasks

K = 20


@pytest.mark.parametrize("block_size", [1, 3, 7, 20, 64])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_sums_are_the_same_in_blocks_of_any_size(block_size, scale):
    rng = np.random.default_rng(0)
    log_weights, values = (x.astype(np.float32) for x in (scale * rng.normal(size=(2, K)), rng.normal(size=(2, K))))

    def terms(ids):
        return jnp.asarray(log_weights)[:, ids], {"value": jnp.asarray(values)[:, ids]}

    log_total, mean = jax.jit(lambda: sum_over_tasks(terms, K, block_size))()
    exact = log_weights.astype(np.float64)
    largest = exact.max(axis=1, keepdims=True)
    weights = np.exp(exact - largest)
    np.testing.assert_allclose(log_total, largest[:, 0] + np.log(weights.sum(axis=1)), rtol=1e-6)
    np.testing.assert_allclose(mean["value"], (weights * values).sum(axis=1) / weights.sum(axis=1), rtol=1e-5)


def test_only_tasks_of_the_pool_are_drawn():
    drawn = []

    def terms(ids):
        jax.debug.callback(lambda ids: drawn.extend(ids.tolist()), ids)
        return jnp.zeros(ids.shape), ()

    log_total, _ = sum_over_tasks(terms, K, 7)
    jax.effects_barrier()
    assert set(drawn) == set(range(K))
    np.testing.assert_allclose(log_total, np.log(K), rtol=1e-6)
