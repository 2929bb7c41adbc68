"""A recurrence whose gradient is written by hand has the gradient that JAX derives for the plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.models.recurrence import recur

B, H = 3, 4


def cell(weights, gates, state):
    """A cell whose output, state and weights all meet: gates [B, 2 H], state {'slow': [B, H], 'count': [B]}."""
    write, read = jnp.split(gates, 2, axis=-1)
    slow = jnp.tanh(weights["decay"]) * state["slow"] + jnp.sin(write * weights["gain"])
    count = 0.9 * state["count"] + write.sum(axis=-1)
    return jnp.tanh(slow * read + count[:, None]), {"slow": slow, "count": count}


def plain(weights, kernel, gates, state):
    hidden, outputs = jnp.zeros((B, H)), []
    for gates_t in gates:
        hidden, state = cell(weights, gates_t + hidden @ kernel, state)
        outputs.append(hidden)
    return jnp.stack(outputs)


@pytest.mark.parametrize("length", [1, 6])
def test_outputs_and_all_gradients_are_those_of_the_plain_loop(length, quick_jit):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arguments = (
            {"decay": rng.normal(size=()), "gain": rng.normal(size=H)},
            rng.normal(size=(H, 2 * H)),
            rng.normal(size=(length, B, 2 * H)),
            {"slow": rng.normal(size=(B, H)), "count": rng.normal(size=B)},
        )
        cotangent = rng.normal(size=(length, B, H))

        @quick_jit
        def outputs_and_gradients(*arguments):
            hidden, backward = jax.vjp(lambda *x: recur(cell, *x), *arguments)
            expected, expected_backward = jax.vjp(plain, *arguments)
            return (recur(cell, *arguments), hidden, backward(cotangent)), (
                expected,
                expected,
                expected_backward(cotangent),
            )

        actual, expected = outputs_and_gradients(*arguments)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
            assert x.dtype == np.float64
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12, err_msg=jax.tree_util.keystr(path))
        _, kernel_gradient, _, state_gradient = expected[2]
        assert np.any(kernel_gradient != 0) == (length > 1) and np.any(state_gradient["slow"] != 0)
