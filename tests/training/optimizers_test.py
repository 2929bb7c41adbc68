import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.training import optimizers
from gpicl_flax.training.optimizers import adam, adamw, sgd, sign_ema


def run(optimizer, gradients, start=0.0):
    """The parameter after each gradient."""
    parameter = jnp.float32(start)
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


def test_adamw_takes_its_share_of_the_parameter_away():
    gradients = [0.5, -0.2, 0.1]
    m = v = 0.0
    theta, expected = 2.0, []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.01 * ((m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t) + 1e-8) + 1e-8) + 0.3 * theta)
        expected.append(theta)
    np.testing.assert_allclose(run(adamw(0.01, weight_decay=0.3), gradients, start=2.0), expected, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_is_the_equations(momentum):
    gradients = [0.5, -0.2, 0.1]
    trace = theta = 0.0
    expected = []
    for g in gradients:
        trace = momentum * trace + g
        theta -= 0.1 * trace
        expected.append(theta)
    np.testing.assert_allclose(run(sgd(0.1, momentum=momentum), gradients), expected, rtol=1e-5)


def test_sign_ema_follows_the_sign_of_the_average():
    # With decay 0.9 the average stays positive until the negative gradients outweigh the first one.
    gradients = [1.0, -0.3, -0.3, -0.3, -0.3, 0.0]
    average, theta, expected = 0.0, 0.0, []
    for g in gradients:
        average = 0.9 * average + 0.1 * g
        theta -= 0.01 * np.sign(average)
        expected.append(theta)
    assert np.sign(np.diff([0, *expected])).tolist() == [-1, -1, -1, 1, 1, 1]
    np.testing.assert_allclose(run(sign_ema(0.01), gradients), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(run(sign_ema(0.01, decay=0.0), [2.0, -1.0]), [-0.01, 0.0], atol=1e-9)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "sign_ema"])
def test_every_optimizer_clips_and_takes_schedules_and_refuses_what_it_cannot_use(name):
    make = getattr(optimizers, name)
    # Two gradients, the first of which is clipped to a tenth: what follows depends on their ratio.
    assert run(make(0.1, clip_norm=0.1), [1.0, -0.095]) == pytest.approx(run(make(0.1), [0.1, -0.095]))
    assert run(make(0.1, clip_norm=0.1), [1.0, -0.095]) != pytest.approx(run(make(0.1), [1.0, -0.095]))
    assert run(make(optax.linear_schedule(0.0, 1.0, 2)), [1.0])[0] == 0
    for settings in ({"learning_rate": -1.0}, {"learning_rate": "x"}, {"clip_norm": -1.0}, {"clip_norm": float("inf")}):
        with pytest.raises(UsageError, match=rf"^{name}\.{next(iter(settings))} must be a number from 0 on"):
            make(**settings)


@pytest.mark.parametrize(("make", "decay"), [(adam, "b1"), (adamw, "b2"), (sgd, "momentum"), (sign_ema, "decay")])
def test_a_decay_of_one_is_refused(make, decay):
    with pytest.raises(UsageError, match=f"{decay} must be less than 1"):
        make(**{decay: 1.0})


@pytest.mark.parametrize("make", [adam, adamw, sgd, sign_ema])
def test_a_schedule_is_a_factor_of_the_learning_rate(make):
    schedule = optax.linear_schedule(0.0, 1.0, 4)
    whole, factored = make(lambda step: 0.1 * schedule(step)), make(0.1, schedule=schedule)
    assert "schedule" not in make(0.1).arguments
    params = jnp.float32([1.0, -2.0])
    for optimizer in (factored, optimizers.inject(factored)):
        states, moved = [whole.init(params), optimizer.init(params)], [params, params]
        for step in range(6):
            gradient = jnp.float32([0.3, -0.1 * step])
            for index, each in enumerate((whole, optimizer)):
                update, states[index] = each.update(gradient, states[index], moved[index])
                moved[index] = optax.apply_updates(moved[index], update)
            np.testing.assert_allclose(moved[0], moved[1], rtol=1e-5)
    assert optimizers.hyperparameters(factored)["learning_rate"] == np.float32(0.1)
    assert optimizers.structure(factored) == optimizers.structure(make(0.2, schedule=schedule))
    with pytest.raises(UsageError, match="schedule must be"):
        make(0.1, schedule=0.5)
