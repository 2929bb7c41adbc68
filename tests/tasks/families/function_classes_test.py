"""The function classes of Garg et al. against numpy, and their distributions."""

import functools

import jax
import numpy as np
import pytest

from gpicl_flax.tasks.families.function_classes import FUNCTION_CLASSES, FunctionClasses

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
