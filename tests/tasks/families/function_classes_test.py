"""The function classes of Garg et al. against numpy, and their distributions."""

import functools

import jax
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.families import NoisyLinearRegression
from gpicl_flax.tasks.families.function_classes import FUNCTION_CLASSES, FunctionClasses
from gpicl_flax.training.curriculum import Curriculum
from gpicl_flax.training.settings import Training

X, T, COUNT = 20, 5, 3000


@functools.cache
def draw(name):
    family = FunctionClasses(function_class=name, dimensions=X, sequence_length=T)

    def both(key):
        task_key, sequence_key = jax.random.split(key)
        task = family.draw_task(task_key)
        sequence = family.draw_sequence(task, sequence_key)
        return task, sequence.inputs, sequence.targets

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), COUNT)))


@pytest.mark.parametrize("name", FUNCTION_CLASSES)
def test_the_mean_square_of_targets_is_what_published_errors_are_divided_by(name):
    _, inputs, targets = draw(name)
    assert inputs.shape == (COUNT, T, X) and targets.shape == (COUNT, T) and targets.dtype == np.float32
    published = {"linear": 20, "sparse_linear": 3, "tree": 1, "relu_network": 20}[name]
    assert FunctionClasses(function_class=name).targets.chance_loss == published
    np.testing.assert_allclose(np.mean(targets.astype(np.float64) ** 2), published, rtol=0.06)
    assert np.abs(targets.mean()) < 0.05 * np.sqrt(published)


def test_inputs_are_standard_normal():
    flat = draw("linear")[1].reshape(-1, X)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(X), atol=0.05)


def test_linear_functions():
    weights, inputs, targets = draw("linear")
    np.testing.assert_allclose(targets, np.einsum("btx,bx->bt", inputs, weights), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights.T @ weights / COUNT, np.eye(X), atol=0.12)


def test_sparse_functions_depend_on_three_coordinates():
    weights, inputs, targets = draw("sparse_linear")
    np.testing.assert_allclose(targets, np.einsum("btx,bx->bt", inputs, weights), rtol=1e-4, atol=1e-5)
    assert ((weights != 0).sum(axis=1) == 3).all()
    np.testing.assert_allclose((weights != 0).mean(axis=0), 3 / X, atol=0.03)
    np.testing.assert_allclose(np.mean(weights[weights != 0] ** 2), 1, rtol=0.05)


def test_trees_branch_on_signs():
    tree, inputs, targets = draw("tree")
    assert tree.coordinates.shape == (COUNT, 15) and tree.values.shape == (COUNT, 16)
    for row in range(20):
        for x, y in zip(inputs[row], targets[row], strict=True):
            node = 0
            while node < 15:
                node = 2 * node + (2 if x[tree.coordinates[row, node]] > 0 else 1)
            assert y == tree.values[row, node - 15]
    np.testing.assert_allclose(np.bincount(tree.coordinates.ravel(), minlength=X) / tree.coordinates.size, 1 / X, 0.1)
    np.testing.assert_allclose([tree.values.mean(), tree.values.var()], [0, 1], atol=0.03)


def test_networks_have_one_layer_of_relus():
    network, inputs, targets = draw("relu_network")
    hidden = np.maximum(np.einsum("btx,bxh->bth", inputs, network.hidden), 0)
    np.testing.assert_allclose(targets, np.einsum("bth,bh->bt", hidden, network.output), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose([network.hidden.var(), network.output.var()], [1, 2 / 100], rtol=0.02)


@pytest.mark.parametrize("name", FUNCTION_CLASSES)
def test_a_task_is_determined_by_its_key_alone(name):
    key = jax.random.split(jax.random.key(0), COUNT)[7]
    alone = FunctionClasses(function_class=name, dimensions=X).draw_task(jax.random.split(key)[0])
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(draw(name)[0]), strict=True):
        np.testing.assert_allclose(one, many[7], rtol=1e-6)


def made(family, numbers):
    batch = {"task_ids": np.arange(8, dtype=np.uint32), "sequence_seeds": np.arange(8, dtype=np.uint32)}
    return family.make_sequences(None, np.uint32(0), batch, (), numbers, max_bytes=1, num_shards=1)


def test_a_curriculum_leaves_the_last_inputs_out_of_the_function_too():
    family = FunctionClasses(function_class="linear", dimensions=X, sequence_length=T)
    full, some = made(family, family.numbers()), made(family, np.float32(3))
    np.testing.assert_array_equal(some.inputs[..., :3], full.inputs[..., :3])
    assert (np.asarray(some.inputs)[..., 3:] == 0).all() and np.asarray(full.inputs).all()
    # Three weights and no noise: what five examples have in common is a linear function of the first three inputs.
    for x, y in zip(np.asarray(some.inputs, np.float64), np.asarray(some.targets, np.float64), strict=True):
        assert np.abs(y - x[:, :3] @ np.linalg.lstsq(x[:, :3], y)[0]).max() < 1e-5
    assert family.unseen_numbers(np.float32(3)) == X


def test_the_schedule_of_inputs_is_rounded_and_kept_in_range():
    growing = Curriculum(dimensions=optax.linear_schedule(-1, X + 3, X + 4))
    active = [float(growing.numbers(step, np.float32(X))) for step in range(X + 8)]
    assert active == [1, 1, 1, *range(2, X + 1), *[X] * (X + 8 - 2 - X)]


def test_other_families_have_no_inputs_to_leave_out():
    curriculum = Curriculum(dimensions=optax.linear_schedule(1, 8, 10))
    model, training = LSTM(hidden_size=4, predicts="numbers"), Training(steps=10, curriculum=curriculum)
    with pytest.raises(UsageError, match=r"Curriculum.dimensions: the tasks of NoisyLinearRegression have no dim"):
        Run(model=model, tasks=NoisyLinearRegression(), training=training)
    Run(model=model, tasks=FunctionClasses(), training=training)
