"""The state audit: `state_size(...).exact` counts every number that predictions depend on, and no other.

For every model of the package, in float64, with all parameters redrawn from N(0, 1 / fan-in): disturbing any one number
of the state that a context leaves changes some prediction, and the numbers that do so are as many as `exact`. From
these numbers, the pending example (what the query's token shows of the last one) and the position alone, predictions
are those of the whole sequence.
"""

import dataclasses
import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import gpicl_flax.models
import gpicl_flax.references
from gpicl_flax import config, models
from gpicl_flax.models import layers
from gpicl_flax.models.sequence_model import Context, UnreadContext

B, T, X, C, QUERIES = 2, 5, 3, 3, 4
LENGTHS = (0, 1, 3, T)
JUNK = 1e3  # what is added to numbers that do not matter
PARTS = (  # of a hybrid
    models.RGLRU(num_heads=2, key_size=3),
    models.SlidingWindowTransformer(num_heads=2, key_size=3, window=3),
)
# Whatever of these settings a model has.
SMALL = {
    "num_classes": C, "num_layers": 1, "num_heads": 2, "key_size": 3, "model_size": 8, "mlp_ratio": 1, "chunk_size": 2,
    "hidden_size": 3, "size": 3, "grid_size": 2, "message_size": 2, "layer_size": 2, "hidden_sizes": (3,), "window": 3,
    "pattern": PARTS,
}  # fmt: skip
# Models without a state, and why.
STATELESS = {"MLP": "it sees one example at a time, and no label"}
# Other settings by which models are small.
OWN = {"RWKV7": {"channel_mix": True}, "Hybrid": {"num_layers": 2}}
# Settings that no rule below varies.
FURTHER = {
    "LinearAttention": [{"feature_map": "identity"}],
    "LSTM": [{"mlp_size": 2}],
    "Hybrid": [{"num_layers": 3, "pattern": (models.RWKV7(num_heads=2, key_size=3, channel_mix=True), *PARTS)}],
    "VSML": [{"num_layers": 2, "token_layout": "aligned"}],
    "OnlineSGD": [{"hidden_sizes": ()}, {"hidden_sizes": (3, 2)}],
}  # fmt: skip


def discovered() -> dict[str, type[models.SequenceModel]]:
    """Every sequence model that the modules of the package register with gin, by its name."""
    for package in (gpicl_flax.models, gpicl_flax.references):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, waiting = {}, [models.SequenceModel]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        name = f"{cls.__module__}.{cls.__name__}"
        if name.startswith("gpicl_flax.") and config.find_configurable(name):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))


DISCOVERED = discovered()


def variants(cls) -> list[dict]:
    """The settings that a model is tried with: small sizes, then what changes its state or may do so."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    small = {name: value for name, value in SMALL.items() if name in defaults} | OWN.get(cls.__name__, {})
    switches = [name for name, value in defaults.items() if isinstance(value, bool)]
    further = [{name: not (defaults | small)[name]} for name in switches] + FURTHER.get(cls.__name__, [])
    if small.get("num_layers") == 1:
        further += [{"num_layers": 2}]
    if "token_layout" in defaults:
        further += [{"token_layout": "aligned"}]
    return [small | settings for settings in ({}, *further)]


def cases() -> list:
    """One variant of each model, with the short convolution if it can have one; the others are left to long checks."""
    found = []
    for name, cls in DISCOVERED.items():
        tried = variants(cls)
        first = next((settings for settings in tried if settings.get("short_convolution")), tried[0])
        for settings in tried:
            changed = [key for key, value in settings.items() if SMALL.get(key) != value and key != "pattern"]
            changed = [f"{key}={settings[key]}" for key in changed]
            marks = [] if settings is first else [pytest.mark.slow]
            found.append(pytest.param(cls, settings, id="-".join([name, *changed]), marks=marks))
    return found


@pytest.fixture
def float64(monkeypatch):
    """Makes the models compute in float64, also where they ask for float32."""
    for name in ("linear", "layer_norm"):
        original = getattr(layers, name)

        def wide(*args, original=original, **settings):
            settings |= {key: "float64" for key in ("dtype", "backward_dtype") if key in settings}
            return original(*args, **settings)

        monkeypatch.setattr(layers, name, wide)
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield


def redrawn(rng, path, like):
    """A parameter drawn from N(0, 1 / fan-in), where a vector has a fan-in of one."""
    shape = like.shape
    inputs = shape[:-1] if "output" in path[-2].key else shape[:1]  # heads are the outputs of all other layers
    fan_in = np.prod(inputs) if len(shape) > 1 else 1
    return jnp.asarray(rng.normal(size=shape) / fan_in**0.5)


def state_of(context):
    return context.state if isinstance(context, Context) else context


def with_state(context, state):
    return context._replace(state=state) if isinstance(context, Context) else state


@pytest.mark.parametrize(("cls", "settings"), cases())
def test_the_exact_size_counts_what_predictions_depend_on(cls, settings, float64, quick_jit):
    model, rng = cls(**settings), np.random.default_rng(0)
    inputs, labels = rng.normal(size=(B, T, X)), rng.integers(C, size=(B, T))
    queries = rng.normal(size=(B, QUERIES, X))
    params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), inputs, labels))
    params = jax.tree_util.tree_map_with_path(functools.partial(redrawn, rng), params)
    rngs = {"learner": jax.random.key(1)}

    def encode(length):
        return model.apply(params, inputs, labels, length, rngs=rngs, method="encode")

    def answer(context):
        return model.apply(params, context, queries, method="answer")

    def whole(length):
        """The predictions of the whole sequence with each query after `length` examples."""

        def one(query):
            longer = jnp.pad(jnp.asarray(inputs), ((0, 0), (0, 1), (0, 0))).at[:, length].set(query)
            return model.apply(params, longer, jnp.pad(labels, ((0, 0), (0, 1))), rngs=rngs)[:, length]

        return jax.vmap(one, 1, 1)(queries)

    def audit(length):
        context = encode(length)
        assert not isinstance(context, UnreadContext), "the context itself is the state, and no size is known"
        state = state_of(context)
        numbers, rebuild = ravel_pytree(state)
        size = numbers.size // B
        # The number within its sequence that each one is: the same number of every sequence is disturbed at once, since
        # sequences do not see each other.
        index, start = [], 0
        for leaf in jax.tree.leaves(state):
            index += [*range(start, start + leaf[0].size)] * B
            start += leaf[0].size
        index = jnp.array(index, int)

        def disturbed(change):
            return answer(with_state(context, rebuild(numbers + change)))

        # All by one program, so that what does not depend on a number is the same to the last bit. Two amounts, because
        # a number may matter only beyond a threshold, such as the other operand of a maximum.
        changed, amounts = jnp.tile(jnp.arange(size), 2), jnp.repeat(jnp.array([1.0, JUNK]), size)
        changes = jnp.append(changed, -1), jnp.append(amounts, 0.0)
        answers = jax.lax.map(lambda change: disturbed(change[1] * (index == change[0])), changes)
        before, differs = answers[-1], (answers[:-1] != answers[-1]).any(axis=(1, 2, 3))
        matters = differs.reshape(2, size).any(axis=0)
        junk = jnp.where(matters[index], 0, JUNK) if size else numbers
        return matters, before, disturbed(junk), whole(length)

    run = quick_jit(audit)
    assert "xf32>" not in run.lower(1).as_text()
    for length in LENGTHS:
        matters, answers, from_what_matters, expected = jax.device_get(run(length))
        exact = model.state_size(X, length).exact
        # Without examples, attention has nothing but itself to attend to, so queries and keys do not matter yet.
        assert matters.sum() == exact or (length == 0 and matters.sum() < exact), (length, exact, matters)
        np.testing.assert_allclose(from_what_matters, expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(answers, expected, rtol=1e-8, atol=1e-10)
    assert len(matters) == exact, "the state of a whole context has numbers that no prediction depends on"
    assert (exact == 0) == (cls.__name__ in STATELESS)
    pending = (
        C + X * (getattr(model, "token_layout", "") == "aligned") if isinstance(model, models.StatefulModel) else 0
    )
    print(f"{cls.__name__}: exact {exact}; beside it {pending} numbers of the pending example, and the position")


def test_every_model_that_gpicl_lists_is_audited():
    from gpicl_flax.runs import model_zoo

    assert set(DISCOVERED.values()) == set(model_zoo.MODELS)
