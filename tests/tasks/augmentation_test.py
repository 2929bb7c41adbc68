import functools

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.tasks import augmentation, keys
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import partitioning

X, C = 12, 10
FORM = ProjectionSpec("span", (9,), (9,))


def make_tasks(ids, seed=0, permute_labels_prob=1.0, num_features=X):
    make = functools.partial(
        augmentation.make_task,
        keys.task_key(seed),
        num_coordinates=num_features,
        num_features=num_features,
        num_classes=C,
        permute_labels_prob=permute_labels_prob,
    )
    return jax.device_get(jax.jit(jax.vmap(make))(np.asarray(ids, np.uint32)))


def make_sequences(dataset, ids, indices, permute_labels_prob=1.0, seed=0):
    make = functools.partial(augmentation.Augmentation(FORM, C).make_sequences, keys.task_key(seed))
    make = jax.jit(functools.partial(make, permute_labels_prob=permute_labels_prob))
    return jax.device_get(make(np.asarray(ids, np.uint32), base_examples(dataset, indices)))


def base_examples(dataset, indices):
    inputs = (dataset.train.inputs[indices].astype(np.float32) - np.float32(dataset.mean)) / np.float32(dataset.std)
    return augmentation.Examples(inputs, dataset.train.labels[indices])


@pytest.mark.parametrize("num_features", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_projections_are_iid_normal_with_variance_one_over_features(num_features):
    projections = make_tasks(range(500), num_features=num_features).projection
    entries = projections.reshape(500, -1)
    standard = entries.reshape(-1) * num_features**0.5
    assert scipy.stats.kstest(standard[::7], "norm").pvalue > 1e-3
    assert standard.var() == pytest.approx(1, abs=5 * (2 / standard.size) ** 0.5)
    # Independent within a task (entries against each other over tasks) and between tasks.
    for matrix in (entries[:, :60], entries.T[:, :60]):
        correlations = np.corrcoef(matrix, rowvar=False)[np.triu_indices(60, k=1)]
        scale = len(matrix) ** -0.5
        assert correlations.std() == pytest.approx(scale, rel=0.1)
        assert np.abs(correlations).max() < 6 * scale


def test_permutations_are_uniform():
    permutations = make_tasks(range(5000)).label_permutation
    assert (np.sort(permutations, axis=1) == np.arange(C)).all()
    counts = np.stack([np.bincount(column, minlength=C) for column in permutations.T])
    assert scipy.stats.chisquare(counts.reshape(-1)).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.1, 0.9, 1.0])
def test_a_share_one_minus_p_of_tasks_keeps_the_labels(p):
    permutations = make_tasks(range(4000), permute_labels_prob=p).label_permutation
    kept = (permutations == np.arange(C)).all(axis=1).mean()
    assert kept == pytest.approx(1 - p, abs=0.025)


def test_the_bias_belongs_to_the_id_and_leaves_the_rest_of_the_task_alone():
    biased, free = make_tasks(range(200), permute_labels_prob=0.5), make_tasks(range(200), permute_labels_prob=1.0)
    np.testing.assert_array_equal(biased.projection, free.projection)
    same = (biased.label_permutation == free.label_permutation).all(axis=1)
    identity = (biased.label_permutation == np.arange(C)).all(axis=1)
    assert (same | identity).all()
    assert 0.3 < same.mean() < 0.7


def test_other_ids_and_other_seeds_are_other_tasks():
    tasks, other_seed = make_tasks([0, 1, 2**31, 2**32 - 1]), make_tasks([0, 1, 2**31, 2**32 - 1], seed=1)
    everything = np.concatenate([tasks.projection, other_seed.projection]).reshape(8, -1)
    assert np.abs(np.corrcoef(everything) - np.eye(8)).max() < 0.5


def test_a_sequence_is_the_normalised_projected_base_examples(toy_dataset):
    rng = np.random.default_rng(0)
    indices = rng.integers(200, size=(3, 7))
    inputs, labels = make_sequences(toy_dataset, [5, 6, 2**31], indices)
    tasks = make_tasks([5, 6, 2**31], num_features=9)
    images = (toy_dataset.train.inputs[indices] - np.float64(toy_dataset.mean)) / toy_dataset.std
    np.testing.assert_allclose(
        inputs, np.einsum("byx,bty->btx", tasks.projection.astype(np.float64), images), atol=1e-5
    )
    for row, permutation in enumerate(tasks.label_permutation):
        np.testing.assert_array_equal(labels[row], permutation[toy_dataset.train.labels[indices[row]]])


def test_the_same_id_is_the_same_task_in_any_place_of_any_batch(toy_dataset):
    rng = np.random.default_rng(0)
    ids, indices = rng.integers(2**32, size=16), rng.integers(200, size=(16, 7))
    whole = make_sequences(toy_dataset, ids, indices)
    order = rng.permutation(16)
    for rows in (order, order[:5], order[:1]):
        for part, full in zip(make_sequences(toy_dataset, ids[rows], indices[rows]), whole, strict=True):
            np.testing.assert_array_equal(part, full[rows])


@pytest.mark.parametrize("num_devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_the_same_id_is_the_same_task_on_any_number_of_devices(toy_dataset, num_devices):
    rng = np.random.default_rng(0)
    ids, indices = rng.integers(2**32, size=16, dtype=np.uint32), rng.integers(200, size=(16, 7)).astype(np.int32)
    mesh = partitioning.MeshShape(data=num_devices).build()
    with jax.set_mesh(mesh):
        sharded = make_sequences_on(mesh, toy_dataset, ids, indices)
    for part, full in zip(sharded, make_sequences(toy_dataset, ids, indices), strict=True):
        np.testing.assert_allclose(part, full, rtol=1e-6, atol=1e-6)


def make_sequences_on(mesh, dataset, ids, indices, **settings):
    examples = base_examples(dataset, indices)

    @jax.jit
    def make(ids, examples):
        make = augmentation.Augmentation(FORM, C, **settings).make_sequences
        inputs, labels = make(keys.task_key(0), ids, examples, permute_labels_prob=1.0)
        return partitioning.constrain_batch(mesh, (inputs, labels))

    inputs, labels = make(*partitioning.shard_batch(mesh, (ids, examples)))
    assert len(inputs.sharding.device_set) == mesh.size
    return jax.device_get((inputs, labels))


def test_seen_tasks_replay_with_their_own_permutation(toy_dataset):
    """What meta-test replays of a biased distribution is what training drew for the same ids."""
    ids, indices = np.arange(32), np.tile(np.arange(7), (32, 1))
    training = make_sequences(toy_dataset, ids, indices, permute_labels_prob=0.5)
    replay = make_sequences(toy_dataset, ids[::-1], indices, permute_labels_prob=0.5)
    np.testing.assert_array_equal(training[1], replay[1][::-1])
    kept = (training[1] == toy_dataset.train.labels[indices]).all(axis=1)
    assert 0.2 < kept.mean() < 0.8


@pytest.mark.parametrize("at_once", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 4))])
def test_sequences_made_in_parts_are_those_made_at_once(toy_dataset, at_once):
    """16 sequences on 2 devices, of which `at_once` fit the memory of a device at a time."""
    rng = np.random.default_rng(0)
    ids, indices = rng.integers(2**32, size=16, dtype=np.uint32), rng.integers(200, size=(16, 7)).astype(np.int32)
    mesh = partitioning.MeshShape(data=2).build()
    memory = at_once * 9 * 9 * 4
    with jax.set_mesh(mesh):
        parts = make_sequences_on(mesh, toy_dataset, ids, indices, max_projection_bytes=memory, num_shards=2)
    for part, full in zip(parts, make_sequences(toy_dataset, ids, indices), strict=True):
        np.testing.assert_allclose(part, full, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("memory", "largest"), [(2**28, 16), (4 * 40 * 40 * 4, 4), (1, 1)])
def test_projections_never_take_more_memory_than_they_may(memory, largest):
    """No array of the program holds the projections of more sequences."""
    projection = ProjectionSpec("span", (40,), (40,))
    make = functools.partial(
        augmentation.Augmentation(projection, C, max_projection_bytes=memory).make_sequences, permute_labels_prob=1.0
    )
    examples = augmentation.Examples(np.zeros((16, 5, 40), np.float32), np.zeros((16, 5), np.int32))
    text = str(jax.make_jaxpr(make)(keys.task_key(0), np.zeros(16, np.uint32), examples))
    assert f"f32[{largest},40,40]" in text
    assert all(f"f32[{n},40,40]" not in text for n in range(largest + 1, 17))
