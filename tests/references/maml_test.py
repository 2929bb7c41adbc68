"""MAML: its gradient through all updates against finite differences of a numpy float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.references import MAML, maml
from gpicl_flax.tasks.targets import sequence_losses

C = 4


def init(model, sequences):
    rng = np.random.default_rng(1)
    params = model.init(jax.random.key(0), *sequences)["params"]
    return jax.tree.map(lambda x: np.array(x + 0.2 * rng.normal(size=x.shape), np.float32), params)


def loss(model, params, sequences):
    return sequence_losses(model.apply({"params": params}, *sequences), sequences[1])[0].mean()


@pytest.mark.parametrize("hidden_sizes", [pytest.param((), marks=pytest.mark.slow), (6,)])
@pytest.mark.parametrize(
    ("optimizer", "name", "settings"),
    [(optax.sgd(0.2), "SGD", (0.2,)), (optax.adam(0.02, eps_root=1e-4), "Adam", (0.02, 1e-4))],
)
def test_meta_gradient_is_that_of_finite_differences(sequences, reference, hidden_sizes, optimizer, name, settings):
    model = MAML(num_classes=C, hidden_sizes=hidden_sizes, inner_optimizer=optimizer)
    params = init(model, sequences)

    def reference_loss(params):
        losses = []
        for inputs, labels in zip(*sequences, strict=True):
            logits = reference.learn(
                reference.layers(params["classifier"]), getattr(reference, name)(*settings), inputs, labels
            )
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            losses.append(-log_probs[np.arange(len(labels)), labels])
        return np.mean(losses)

    assert loss(model, params, sequences) == pytest.approx(reference_loss(params), rel=1e-5)
    gradient = jax.jit(jax.grad(lambda params: loss(model, params, sequences)))(params)
    rng = np.random.default_rng(2)
    for path, part in jax.tree_util.tree_leaves_with_path(gradient):
        direction = rng.normal(size=part.shape)

        def along(size, path=path, direction=direction):
            return reference_loss(
                jax.tree_util.tree_map_with_path(
                    lambda p, x: x + np.float64(size) * direction if p == path else x, params
                )
            )

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        assert np.vdot(part, direction) == pytest.approx(slope, rel=2e-3, abs=1e-6), path


@pytest.mark.slow
def test_the_gradient_is_finite_where_inner_gradients_are_zero(sequences, monkeypatch):
    inputs, labels = sequences
    inputs = inputs.copy()
    inputs[..., 0] = 0  # a weight whose gradient is always zero, as are those of a unit that is never active

    def gradient(model):
        params = init(model, sequences)
        params["classifier"]["hidden_0"]["bias"][0] = -100
        return jax.grad(lambda params: loss(model, params, (inputs, labels)))(params)

    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient(MAML(num_classes=C))))

    plain_adam = {"num_classes": C, "inner_optimizer": optax.adam(1e-3)}
    with pytest.raises(UsageError, match="eps_root"):
        MAML(**plain_adam)
    monkeypatch.setattr(maml, "_is_differentiable_at_zero", lambda optimizer: True)
    assert not all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient(MAML(**plain_adam))))


def test_clipping_inside_is_refused_too():
    with pytest.raises(UsageError, match="no clipping"):
        MAML(inner_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))


def test_all_sequences_begin_with_the_learned_classifier(sequences):
    model = MAML(num_classes=C)
    params = init(model, sequences)
    same = np.broadcast_to(sequences[0][:1, :1], sequences[0].shape)
    logits = model.apply({"params": params}, same, sequences[1])
    np.testing.assert_array_equal(logits[0, 0], logits[1, 0])


@pytest.mark.slow
def test_a_hidden_label_makes_no_step_and_has_a_gradient_of_numbers(sequences):
    inputs, labels = sequences
    hidden = np.array(labels)
    hidden[:, 3:7] = -1
    model = MAML(num_classes=C, hidden_sizes=(6,))
    params = init(model, sequences)
    logits = model.apply({"params": params}, inputs, hidden)
    kept = [*range(3), *range(7, inputs.shape[1])]
    np.testing.assert_allclose(
        logits[:, kept], model.apply({"params": params}, inputs[:, kept], labels[:, kept]), rtol=1e-5, atol=1e-6
    )

    def meta_loss(params):
        return sequence_losses(model.apply({"params": params}, inputs, hidden), labels)[0].mean()

    assert all(jnp.isfinite(x).all() and (x != 0).any() for x in jax.tree.leaves(jax.grad(meta_loss)(params)))
