"""Random functions: the distribution of their columns, and classes against numpy float64."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families import RandomFunctions
from gpicl_flax.tasks.families.random_columns import MOST_MISSING

C, X, T, COUNT = 4, 12, 200, 1000
KEYS = jax.random.split(jax.random.key(0), COUNT)
FAMILY = RandomFunctions(num_classes=C, dimensions=X, min_features=2, max_features=8, sequence_length=T)


@functools.cache
def compiled(**settings):
    family = dataclasses.replace(FAMILY, **settings)

    def both(key):
        task_key, sequence_key = jax.random.split(key)
        task = family.draw_task(task_key)
        return task, family.draw_sequence(task, sequence_key)

    return jax.jit(jax.vmap(both))


@functools.cache
def draw(**settings):
    return jax.tree.map(np.asarray, compiled(**settings)(KEYS))


@pytest.mark.slow
def test_informative_columns_are_log_uniform_in_number_and_among_those_that_are_used():
    columns = draw()[0].columns
    share = np.bincount(columns.num_informative, minlength=9) / COUNT
    expected = np.where(np.arange(9) >= 2, np.log1p(1 / np.maximum(np.arange(9), 1)) / np.log(9 / 2), 0)
    np.testing.assert_allclose(share, expected, atol=0.05)
    used = (columns.scales > 0).sum(axis=1)
    assert (used >= columns.num_informative).all() and used.max() <= X
    # What is used comes first, and informative columns are anywhere among them.
    assert (np.diff((columns.scales > 0).astype(int), axis=1) <= 0).all()
    for row in range(COUNT):
        d, n = columns.num_informative[row], used[row]
        np.testing.assert_array_equal(np.sort(columns.order[row, :n]), np.arange(n))
        assert (n - d) / n <= 0.5
    irrelevant = used > columns.num_informative
    assert 0.3 < irrelevant.mean() < 0.95
    first_is_informative = (columns.order == 0).argmax(axis=1) < columns.num_informative
    np.testing.assert_allclose(first_is_informative.mean(), (columns.num_informative / used).mean(), atol=0.04)


def test_values_have_mean_zero_and_variance_one_whatever_their_column_is():
    family = FAMILY
    task, sequence = draw()
    inputs = sequence.inputs.astype(np.float64)
    assert inputs.shape == (COUNT, T, X) and sequence.targets.dtype == np.int32
    # Without missing values the mean square of inputs is 1; these are, at random, 0.
    none = task.columns.missing_rate == 0
    np.testing.assert_allclose(none.mean(), 0.5, atol=0.06)
    assert task.columns.missing_rate.max() <= MOST_MISSING
    np.testing.assert_allclose(np.mean(inputs[none] ** 2), 1, rtol=0.05)
    values = inputs / np.where(task.columns.scales > 0, task.columns.scales, 1)[:, None] / np.sqrt(X)
    used = task.columns.scales > 0
    for chosen in (task.columns.levels == 0, task.columns.levels > 0):
        pooled = values.swapaxes(1, 2)[used & chosen & none[:, None]]
        np.testing.assert_allclose(pooled.mean(), 0, atol=0.02)
        np.testing.assert_allclose(np.mean(pooled**2), 1, rtol=0.03)
    missing = (inputs == 0).swapaxes(1, 2)[used & (task.columns.levels == 0)]
    rates = np.broadcast_to(task.columns.missing_rate[:, None], used.shape)[used & (task.columns.levels == 0)]
    assert not missing[rates == 0].any()
    assert np.corrcoef(missing.mean(axis=1), rates)[0, 1] > 0.9
    np.testing.assert_allclose(missing.mean(), rates.mean(), rtol=0.03)
    assert (inputs.swapaxes(1, 2)[~used] == 0).all() and family.num_features == X


def test_scales_are_log_normal_before_they_are_divided_by_their_norm():
    columns = draw()[0].columns
    np.testing.assert_allclose(np.square(columns.scales).sum(axis=1), 1, rtol=1e-5)
    # The ratio of two scales does not depend on the norm.
    ratios = np.log(columns.scales[:, 0] / columns.scales[:, 1]) / np.sqrt(2)
    assert scipy.stats.kstest(ratios, "norm").pvalue > 1e-3


def test_discretised_columns_have_their_levels_and_one_informative_column_is_continuous():
    task, sequence = draw()
    columns = task.columns
    assert (np.take_along_axis(columns.levels, columns.order[:, :1], axis=1) == 0).all()
    assert set(np.unique(columns.levels)) == {0, *range(2, 9)}
    for row in range(40):
        for column in np.flatnonzero(columns.scales[row] > 0):
            found = np.unique(np.round(sequence.inputs[row, :, column] / columns.scales[row, column], 3))
            levels = columns.levels[row, column]
            if levels:
                assert len(found) <= levels + 1  # 0 where values are missing
            elif columns.missing_rate[row] == 0:
                assert len(found) > 0.9 * T  # rounding makes a few equal


def test_correlated_columns_share_factors():
    task, sequence = draw()
    continuous = (task.columns.levels == 0) & (task.columns.scales > 0)
    rows = np.flatnonzero(continuous[:, :2].all(axis=1) & (task.columns.missing_rate == 0))
    expected, found = [], []
    for row in rows:
        loadings = task.columns.loadings[row, :, :2]
        expected.append(loadings[:, 0] @ loadings[:, 1])
        found.append(np.corrcoef(sequence.inputs[row, :, :2].T)[0, 1])
    residuals = np.array(found) - expected
    assert np.std(expected) > 0.1 and np.mean(np.array(expected) == 0) > 0.2
    np.testing.assert_allclose(residuals.mean(), 0, atol=0.03)
    assert residuals.std() < 2 / np.sqrt(T)


def test_trees_and_networks_are_those_of_numpy():
    task, _ = draw()
    np.testing.assert_allclose(task.is_tree.mean(), 0.5, atol=0.05)
    values = np.random.default_rng(0).normal(size=(20, X))
    depths = set()
    for row in range(60):
        own = jax.tree.map(lambda x, row=row: x[row], task)
        informative = own.columns.order[: own.columns.num_informative]
        found = np.asarray(type(own)(*own).evaluate(values.astype(np.float32)))
        if own.is_tree:
            tree = own.tree
            assert set(tree.columns) <= set(informative) and set(np.flatnonzero(tree.slopes)) == set(informative)
            outputs = []
            for x in values:
                node = 0
                for level in range(6):
                    above = level < tree.depth and x[tree.columns[node]] > tree.thresholds[node]
                    node = 2 * node + (2 if above else 1)
                outputs.append(tree.leaves[node - 63] + tree.slopes.astype(float) @ x)
            depths.add(("tree", int(tree.depth)))
        else:
            network = own.network
            assert set(np.flatnonzero(np.abs(network.first).sum(axis=1))) == set(informative)
            hidden, act = values, (lambda x: np.maximum(x, 0)) if network.has_relus else np.tanh
            for layer, kernel in enumerate([network.first, *network.inner][: network.depth]):
                hidden = act(hidden @ kernel.astype(np.float64) + network.biases[layer])
            outputs = hidden @ network.output.astype(np.float64)
            depths.add(("network", int(network.depth)))
        np.testing.assert_allclose(found, outputs, rtol=1e-3, atol=1e-3)
    assert {("tree", 1), ("tree", 6), ("network", 1), ("network", 3)} <= depths


def test_classes_are_about_equally_frequent_in_every_task_and_their_labels_are_permuted():
    task, sequence = draw()
    counts = np.stack([np.bincount(labels, minlength=C) for labels in sequence.targets])
    # Both the cuts, of 512 rows, and the counts, of T, are estimates of 1/C.
    spread = np.sqrt(0.25 * 0.75 * (1 / 512 + 1 / T))
    for kind in (True, False):
        deviations = (counts[task.is_tree == kind] / T - 1 / C) / spread
        np.testing.assert_allclose(deviations.std(), 1, atol=0.25)
        assert np.abs(deviations).max() < 6
    order = np.stack([np.bincount(column, minlength=C) for column in task.labels.T]) / COUNT
    np.testing.assert_allclose(order, 1 / C, atol=0.06)
    assert (np.diff(task.cuts, axis=1) > 0).all()


def test_what_is_not_missing_determines_the_label():
    """Without missing values, the same row of the table has the same label in every sequence of a task."""
    task, sequence = draw()
    for row in np.flatnonzero(task.columns.missing_rate == 0)[:20]:
        own = jax.tree.map(lambda x, row=row: x[row], task)
        scales = np.where(own.columns.scales > 0, own.columns.scales, 1) * np.sqrt(X)
        outputs = np.asarray(type(own)(*own).evaluate(sequence.inputs[row] / scales))
        classes = (outputs[:, None] > own.cuts).sum(axis=1)
        near = np.abs(outputs[:, None] - own.cuts).min(axis=1) < 1e-4
        assert (own.labels[classes] == sequence.targets[row])[~near].all()


@pytest.mark.slow
def test_projected_inputs_are_the_columns_times_a_matrix_of_the_task():
    task, projected = draw(layout="projected")
    _, padded = draw()
    np.testing.assert_array_equal(projected.targets, padded.targets)
    found = np.einsum("btf,bfx->btx", padded.inputs.astype(np.float64), task.projection)
    np.testing.assert_allclose(projected.inputs, found, atol=1e-4)
    np.testing.assert_allclose(task.projection.var(), 1 / X, rtol=0.02)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_probability_of_trees_can_be_set(probability):
    family = dataclasses.replace(FAMILY, tree_probability=probability)
    is_tree = jax.jit(jax.vmap(lambda key: family.draw_task(key).is_tree))(jax.random.split(jax.random.key(0), 100))
    assert (is_tree == (probability == 1)).all()


def test_a_task_is_determined_by_its_key_alone():
    order = np.random.default_rng(0).permutation(COUNT)
    again = compiled()(KEYS[order])
    for other, first in zip(jax.tree.leaves(again), jax.tree.leaves(draw()), strict=True):
        np.testing.assert_array_equal(other, first[order])
    assert (np.diff(draw()[0].cuts[:, 0]) != 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_features": 13}, "RandomFunctions.max_features = 13 is more than RandomFunctions.dimensions = 12"),
        ({"min_features": 9}, "RandomFunctions.min_features = 9 is more than the 8 features"),
        ({"layout": "sideways"}, "RandomFunctions.layout must be one of padded, projected, not 'sideways'"),
        ({"tree_probability": 1.5}, "RandomFunctions.tree_probability must be at most 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(FAMILY, **settings)
