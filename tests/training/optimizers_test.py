import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.training.optimizers import adam


def run(optimizer, gradients):
    """The parameter after each gradient, from zero."""
    parameter = jnp.zeros(())
    state = optimizer.init(parameter)
    path = []
    for gradient in gradients:
        updates, state = optimizer.update(jnp.float32(gradient), state, parameter)
        parameter = optax.apply_updates(parameter, updates)
        path.append(float(parameter))
    return path


@pytest.mark.parametrize(("eps", "eps_root"), [(1e-8, 1e-8), (1e-8, 0.0), (1e-3, 1e-4)])
def test_adam_is_the_equations_with_both_epsilons(eps, eps_root):
    gradients = [1e-4, -3e-5, 2e-4, 1e-5]
    m = v = theta = 0.0
    expected = []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t) + eps_root) + eps)
        expected.append(theta)
    np.testing.assert_allclose(run(adam(0.01, eps=eps, eps_root=eps_root), gradients), expected, rtol=1e-4)


def test_the_papers_epsilons_are_the_default_and_floor_the_denominator_at_1e_4():
    # A gradient far below the floor: the step is lr * g / 1e-4, not lr.
    (step,) = run(adam(), [1e-6])
    assert step == pytest.approx(-1e-3 * 1e-6 / 1e-4, rel=1e-2)
    (step,) = run(adam(eps_root=0.0), [1e-6])
    assert step == pytest.approx(-1e-3, rel=2e-2)


def test_gradients_are_clipped_before_the_moments():
    assert run(adam(eps_root=0.1, clip_norm=0.5), [3.0]) == pytest.approx(run(adam(eps_root=0.1), [0.5]))
    assert run(adam(eps_root=0.1, clip_norm=0.5), [0.2]) == pytest.approx(run(adam(eps_root=0.1), [0.2]))


def test_the_learning_rate_can_be_a_schedule():
    schedule = optax.warmup_constant_schedule(0.0, 1e-2, 4)
    path = np.diff([0, *run(adam(schedule, eps_root=0.0), [1.0] * 6)])
    np.testing.assert_allclose(path, -1e-2 * np.array([0, 0.25, 0.5, 0.75, 1, 1]), rtol=1e-4, atol=1e-9)
