"""The steps of optimisers under muP, against formulas by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from gpicl_flax import models
from gpicl_flax.config import parse_text
from gpicl_flax.errors import UsageError
from gpicl_flax.models import scaling
from gpicl_flax.runs.run import resolve
from gpicl_flax.sweep import stacking
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training import optimizers, parametrization
from gpicl_flax.training.optimizers import adam, adamw, sgd, sign_ema

BASE = models.Transformer(num_layers=2, model_size=8, num_heads=2, key_size=4, mlp_ratio=1, max_length=3)
# Four times as wide as the base, and twice as deep.
WIDE = BASE.clone(parametrization="mup", base_width=8, base_depth=1, **BASE.grown(32))
RATE, EPS, EPS_ROOT, DECAY, B1, B2 = 0.1, 0.02, 1e-4, 0.3, 0.9, 0.99

# Of some tensors: the factors on rate, weight decay and epsilon, from the tables of the papers. The bias of the logits
# has no width.
BY_HAND = {
    "embedding/kernel": (1, 1, 1 / 4),
    "positions": (1, 1, 1 / 4),
    "block_0/query/kernel": (1 / 4, 4, 1 / 8),
    "block_1/mlp_output/kernel": (1 / 4, 4, 1 / 8),
    "block_1/mlp_output/bias": (1, 1, 1 / 8),
    "final_norm/scale": (1, 1, 1 / 4),
    "logits/kernel": (1, 1, 1 / 4),
    "logits/bias": (1, 1, 1),
}


@pytest.fixture
def gradients():
    """Parameters of `WIDE` and three gradients, float64, small enough for both epsilons to matter."""
    rng = np.random.default_rng(0)
    shapes = nn.unbox(models.abstract_parameters(WIDE, 3, 3))

    def draw(scale):
        return jax.tree.map(lambda x: scale * rng.normal(size=x.shape), shapes)

    with jax.enable_x64(True):
        yield draw(1.0), [draw(0.01) for _ in range(3)]


def taken(optimizer, params, gradients):
    """The parameters after all steps."""

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def take(params, gradients):
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    params = take(jax.tree.map(jnp.asarray, params), gradients)
    return {"/".join(path): np.asarray(x) for path, x in scaling.flatten(params).items()}


def by_name(tree):
    return {"/".join(path): x for path, x in scaling.flatten(tree).items()}


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_steps_of_adam_are_the_equations_of_each_role(gradients, decay):
    params, steps = gradients
    numbers = {"b1": B1, "b2": B2, "eps": EPS, "eps_root": EPS_ROOT}
    optimizer = adamw(RATE, **numbers, weight_decay=decay) if decay else adam(RATE, **numbers)
    found = taken(parametrization.for_model(optimizer, WIDE), params, steps)
    for name, (of_rate, of_decay, of_eps) in BY_HAND.items():
        theta, m, v = by_name(params)[name], 0.0, 0.0
        for t, gradient in enumerate(map(by_name, steps), start=1):
            g = gradient[name]
            m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
            # The epsilon under the root is of the size of squares.
            root = np.sqrt(v / (1 - B2**t) + EPS_ROOT * of_eps**2) + EPS * of_eps
            theta = theta - RATE * of_rate * (m / (1 - B1**t) / root + decay * of_decay * theta)
        np.testing.assert_allclose(found[name], theta, rtol=1e-12, atol=1e-14, err_msg=name)


def test_all_gradients_are_clipped_together(gradients):
    params, steps = gradients
    norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(steps[0])))
    plain = parametrization.for_model(adam(RATE, eps=EPS), WIDE)
    clipped = parametrization.for_model(adam(RATE, eps=EPS, clip_norm=norm / 5), WIDE)
    expected = taken(plain, params, [jax.tree.map(lambda x: x / 5, steps[0])])
    for name, array in taken(clipped, params, steps[:1]).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-9)


def test_steps_of_signs_have_the_rate_of_the_role(gradients):
    params, steps = gradients
    found = taken(parametrization.for_model(sign_ema(RATE), WIDE), params, steps[:1])
    for name, (of_rate, _, _) in BY_HAND.items():
        expected = by_name(params)[name] - RATE * of_rate * np.sign(by_name(steps[0])[name])
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def test_at_the_base_and_in_the_standard_parametrisation_the_optimiser_is_itself():
    optimizer = adam(1e-2)
    at_base = BASE.clone(parametrization="mup", base_width=8)
    assert parametrization.for_model(optimizer, BASE) is optimizer
    assert parametrization.for_model(optimizer, at_base) is optimizer
    # Once scaled, it is scaled anew for another model.
    scaled = parametrization.for_model(optimizer, WIDE)
    assert scaled is not optimizer and parametrization.for_model(scaled, BASE) is optimizer
    assert parametrization.for_model(scaled, WIDE).unscaled is optimizer


def test_the_numbers_stay_in_the_state(gradients):
    params, steps = gradients
    optimizer = parametrization.for_model(adamw(RATE, eps=EPS), WIDE)
    assert {"learning_rate", "eps", "eps_root", "weight_decay"} <= optimizers.hyperparameters(optimizer).keys()
    injected = optimizers.inject(optimizer)
    start = injected.init(params)
    other = optimizers.hyperparameters(parametrization.for_model(adamw(3 * RATE, eps=EPS), WIDE))
    updates = [
        injected.update(steps[0], optimizers.with_hyperparameters(start, numbers), params)[0]
        for numbers in (start.hyperparams, other)
    ]
    for mine, theirs in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_allclose(3 * np.asarray(mine), theirs, rtol=1e-5)


@pytest.mark.parametrize(("optimizer", "name"), [(sgd(0.1), "sgd"), (optax.adam(0.1), "one that is not gpicl_flax's")])
def test_optimisers_without_rules_are_refused(optimizer, name):
    with pytest.raises(UsageError, match=f"Transformer.parametrization = 'mup' needs Run.optimizer.*{name}"):
        parametrization.for_model(optimizer, WIDE)


RUN = """
Run.model = @Transformer()
Run.optimizer = @adam()
Transformer.parametrization = 'mup'
Transformer.base_width = 64
"""


def test_a_run_scales_its_optimiser_and_shares_a_stack_with_other_rates():
    runs = [resolve(parse_text(f"{RUN}adam.learning_rate = {rate}")) for rate in (1e-3, 3e-3)]
    assert all(found.run.optimizer.unscaled.arguments["learning_rate"] for found in runs)
    points = [Point(str(index), {}, found.config) for index, found in enumerate(runs)]
    assert stacking.groups(points, [found.run for found in runs]) == [[0, 1]]
    with pytest.raises(UsageError, match="it is sgd"):
        resolve(parse_text(RUN.replace("adam", "sgd")))


def changes(model, data):
    """How much the logits and the hidden layers of an LSTM or a Transformer change in one step, by layer."""
    inputs, labels = data

    def activations(params):
        _, kept = model.apply({"params": params}, inputs, labels, capture_intermediates=True, mutable=["intermediates"])
        return {name: jax.tree.leaves(each)[0] for name, each in kept["intermediates"].items() if name != "__call__"}

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def change():
        params = nn.unbox(model.init(jax.random.key(0), inputs, labels))["params"]
        optimizer = parametrization.for_model(adam(1e-2, eps_root=0.0), model)

        def loss(params):
            logits = model.apply({"params": params}, inputs, labels)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
        before, after = activations(params), activations(optax.apply_updates(params, updates))
        return jax.tree.map(lambda x, y: jnp.sqrt(jnp.mean((x - y) ** 2)), before, after)

    return change()


SMALL = {"num_heads": 2, "key_size": 4, "model_size": 8, "num_layers": 1, "mlp_ratio": 1, "num_classes": 4}


@pytest.mark.parametrize(
    ("base", "layers"),
    [
        pytest.param(
            models.LSTM(num_classes=4, hidden_size=16), ("gates_input", "hidden", "logits"), marks=pytest.mark.slow
        ),
        pytest.param(models.Transformer(**SMALL, max_length=4), ("block_0", "logits"), marks=pytest.mark.slow),
        pytest.param(models.DeltaNet(**SMALL), ("block_0", "logits"), marks=pytest.mark.slow),
    ],
    ids=lambda value: type(value).__name__,
)
def test_changes_do_not_grow_with_the_width(base, layers):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 4, 5)).astype(np.float32), rng.integers(4, size=(8, 4)).astype(np.int32)
    small = changes(base, data)
    wide = base.at_width(16 * base.width)
    mup = wide.clone(parametrization="mup", base_width=base.width)
    found = [changes(model, data) for model in (wide, mup)]
    for layer in layers:
        standard, scaled = (large[layer] / small[layer] for large in found)
        assert 1 / 3 < scaled < 3 and standard > 4, layer


def test_a_schedule_is_a_factor_of_all_steps(gradients):
    params, steps = gradients
    half = parametrization.for_model(adamw(RATE, eps=EPS, schedule=lambda step: 0.5), WIDE)
    found, expected = (
        taken(parametrization.for_model(optimizer, WIDE), params, steps[:1])
        for optimizer in (half, adamw(RATE / 2, eps=EPS))
    )
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-12)
    assert "schedule" not in optimizers.hyperparameters(half)
