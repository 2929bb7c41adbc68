"""The axes of the data's distribution in the families that have them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.augmentation import make_task
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.datasets.sampler import draw_example_indices
from gpicl_flax.tasks.datasets.variation import scale_variation
from gpicl_flax.tasks.families import GaussianClasses, ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches

GAUSSIAN = GaussianClasses(num_classes=6, dimensions=4, sequence_length=9, task_batch_size=16)
IMAGES = ProjectedImages(input_shape=(9,), sequence_length=9, task_batch_size=16, num_tasks=50, permute_labels_prob=1.0)
FAMILIES = pytest.mark.parametrize("family", [GAUSSIAN, IMAGES], ids=["gaussian", "images"])
ON = {"burstiness": 0.5, "zipf_exponent": 1.0, "label_noise": 0.3, "fixed_labels": 0.5}


@pytest.fixture(scope="module", autouse=True)
def mesh():
    mesh = partitioning.MeshShape(data=1).build()
    with jax.set_mesh(mesh):
        yield mesh


def sequences(family, dataset, mesh, *, seed=0, step=0, rows=slice(None), placement="device"):
    """The sequences of a training step."""
    batches = TaskBatches(family, family.drawing(dataset) if family.has_base_datasets else None, mesh, placement)
    data = dataset if family.has_base_datasets else family.load()
    train = batches.put_on_mesh(data, data.train)
    with_steps = TrainingBatches([Stream(family, seed, step)], train.split, gather=not train.on_device)
    batch = {name: x[0, 0][rows] for name, x in next(with_steps).items()}
    with_steps.close()
    numbers = jax.tree.map(np.float32, family.numbers())
    return jax.device_get(jax.jit(batches.make_sequences)(np.uint32(seed), batch, train.data, numbers))


@FAMILIES
def test_sequences_are_determined_by_seed_and_step_for_any_rows(family, toy_dataset, mesh):
    family = dataclasses.replace(family, **ON)
    whole = sequences(family, toy_dataset, mesh, seed=3, step=2)
    part = sequences(family, toy_dataset, mesh, seed=3, step=2, rows=slice(4, 8))
    np.testing.assert_allclose(part.inputs, whole.inputs[4:8], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(part.targets, whole.targets[4:8])
    assert (sequences(family, toy_dataset, mesh, seed=3, step=3).targets != whole.targets).any()


def test_without_axes_sequences_are_drawn_as_ever(toy_dataset, mesh):
    """By the same keys and streams as before there were axes."""
    batch = {"task_ids": np.arange(5, dtype=np.uint32), "sequence_seeds": np.arange(7, 12, dtype=np.uint32)}
    found = jax.jit(lambda: GAUSSIAN.make_sequences(None, np.uint32(2), batch, (), (), max_bytes=0, num_shards=1))()
    for row, (task_id, seed) in enumerate(zip(batch["task_ids"], batch["sequence_seeds"], strict=True)):
        means = jax.random.normal(jax.random.fold_in(keys.task_key(2), task_id), (6, 4)) / 2
        label_key, noise_key = jax.random.split(jax.random.fold_in(keys.sequence_key(2), seed))
        labels = jax.random.randint(label_key, (9,), 0, 6)
        np.testing.assert_array_equal(found.targets[row], labels)
        inputs = means[labels] + 0.5 * jax.random.normal(noise_key, (9, 4)) / 2
        np.testing.assert_allclose(found.inputs[row], inputs, rtol=1e-5, atol=1e-6)
    assert found.counted is None and found.shown is None

    assert IMAGES.sampler(toy_dataset.train) == toy_dataset.train.sampler
    indices = IMAGES.sampler(toy_dataset.train)(np.random.default_rng(1), 4, 9)["example_indices"]
    np.testing.assert_array_equal(indices, draw_example_indices(np.random.default_rng(1), 4, 9, 200))
    key = jax.random.split(jax.random.fold_in(keys.task_key(2), 3), 3)[1]
    size = {"num_coordinates": 2, "num_features": 2, "num_classes": 10}
    task = make_task(keys.task_key(2), jnp.uint32(3), **size, permute_labels_prob=1.0)
    np.testing.assert_array_equal(task.label_permutation, jax.random.permutation(key, 10))


@pytest.mark.parametrize("axes", [{}, ON])
def test_programs_are_traced_for_the_batches_that_come(axes, toy_dataset, mesh):
    family = dataclasses.replace(IMAGES, **axes)
    stream = TrainingBatches([Stream(family, 0)], toy_dataset.train)
    batch = next(stream)
    stream.close()
    stand_in = jax.ShapeDtypeStruct
    _, assumed = family.abstract_batch(
        family.assumed_drawing(),
        True,
        lambda kind, shape: stand_in(shape, kind),
        lambda kind, shape: stand_in(shape, kind),
    )
    assert assumed.keys() == batch.keys() - {"task_ids"}
    assert all(batch[name].dtype == kind and batch[name].shape[3:] == shape for name, (kind, shape) in assumed.items())


def test_the_place_of_the_examples_changes_nothing(toy_dataset, mesh):
    family = dataclasses.replace(IMAGES, **ON)
    on_device, on_host = (sequences(family, toy_dataset, mesh, placement=place) for place in ("device", "host"))
    np.testing.assert_array_equal(on_device.targets, on_host.targets)
    np.testing.assert_allclose(on_device.inputs, on_host.inputs, rtol=1e-5, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("seed", [0, 7])
def test_label_noise_replaces_a_share_of_the_labels_and_nothing_else(family, seed, toy_dataset, mesh):
    family = dataclasses.replace(family, task_batch_size=1000)
    clean = sequences(family, toy_dataset, mesh, seed=seed)
    noisy = sequences(dataclasses.replace(family, label_noise=0.4), toy_dataset, mesh, seed=seed)
    np.testing.assert_array_equal(noisy.inputs, clean.inputs)
    classes = family.num_classes
    np.testing.assert_allclose((noisy.targets != clean.targets).mean(axis=0), 0.4 * (1 - 1 / classes), atol=0.06)
    moved = noisy.targets[noisy.targets != clean.targets]
    assert len(np.unique(moved)) == classes and noisy.targets.dtype == np.int32


@FAMILIES
def test_a_query_alone_counts_where_it_is_asked_for(family, toy_dataset, mesh):
    assert sequences(family, toy_dataset, mesh).counted is None
    counted = sequences(dataclasses.replace(family, query_only=True), toy_dataset, mesh).counted
    np.testing.assert_array_equal(counted, np.tile(np.arange(9) == 8, (16, 1)))


def test_bursts_of_images_are_bursts_of_their_classes(toy_dataset, mesh):
    family = dataclasses.replace(IMAGES, burstiness=1.0, permute_labels_prob=0.0)
    labels = sequences(family, toy_dataset, mesh).targets
    assert ((labels[:, :-1] == labels[:, -1:]).sum(axis=1) == 3).all()


def test_fixed_gaussian_classes_have_the_same_means_in_all_tasks_of_a_run():
    family = dataclasses.replace(GAUSSIAN, fixed_labels=0.5)
    make = jax.vmap(family.make_task, in_axes=(None, 0))
    ids = np.append(family.seen_task_ids(300), family.unseen_task_ids(300))
    means = np.asarray(make(np.uint32(1), ids))
    np.testing.assert_array_equal(means[:, :3], np.broadcast_to(means[:1, :3], (600, 3, 4)))
    np.testing.assert_allclose(np.cov(means[:, 3:].reshape(600, -1).T), np.eye(12) / 4, atol=0.06)
    np.testing.assert_array_equal(means[:, 3:], np.asarray(jax.vmap(GAUSSIAN.make_task, (None, 0))(1, ids))[:, 3:])
    assert (np.asarray(make(np.uint32(2), ids[:1]))[0, :3] != means[0, :3]).all()


def test_fixed_labels_of_images_stay_and_the_others_are_permuted_among_themselves():
    settings = {"num_coordinates": 2, "num_features": 2, "num_classes": 5, "permute_labels_prob": 1.0}
    key, ids = keys.task_key(0), np.arange(4000, dtype=np.uint32)
    permutations = np.asarray(jax.vmap(lambda i: make_task(key, i, num_fixed=2, **settings).label_permutation)(ids))
    np.testing.assert_array_equal(permutations[:, :2], np.tile([0, 1], (4000, 1)))
    kinds, counts = np.unique(permutations[:, 2:], axis=0, return_counts=True)
    assert len(kinds) == 6 and set(kinds.ravel()) == {2, 3, 4}
    np.testing.assert_allclose(counts / 4000, 1 / 6, atol=0.03)


def test_within_class_variation_moves_examples_to_the_mean_of_their_class_in_the_split(toy_dataset):
    scaled = scale_variation(toy_dataset, 0.25)
    for name in ("train", "test"):
        split, found = getattr(toy_dataset, name), getattr(scaled, name)
        inputs = split.inputs.astype(np.float64)
        means = np.stack([inputs[split.labels == label].mean(axis=0) for label in range(10)])[split.labels]
        np.testing.assert_allclose(found.inputs, means + 0.25 * (inputs - means), rtol=1e-5)
        assert found.inputs.dtype == np.float32
    assert scaled.normalization(True) == toy_dataset.normalization(True)
    assert scaled.normalization(False) == toy_dataset.normalization(False) == (0.0, 255.0)


def test_within_class_variation_is_a_setting_of_the_data():
    settings = {"base_dataset": "digits", "input_shape": (8, 8, 1), "sequence_length": 9}
    family = ProjectedImages(**settings, within_class_variation=0.0)
    train = family.load().train
    for label in range(10):
        assert np.ptp(train.inputs[train.labels == label], axis=0).max() < 1e-4
    assert family.data_settings != ProjectedImages(**settings).data_settings
    assert (
        family.assumed_examples().dtype == "float32" and ProjectedImages(**settings).assumed_examples().dtype == "uint8"
    )


@FAMILIES
def test_only_axes_that_are_on_are_in_run_json(family):
    assert "class_distribution" not in family.run_info()
    found = dataclasses.replace(family, burstiness=0.9, fixed_labels=1.0).run_info()
    assert found["class_distribution"] == {"burstiness": 0.9, "fixed_labels": 1.0}


@FAMILIES
@pytest.mark.parametrize("change", [{"fixed_labels": 0.5}, {"query_only": True}])
def test_axes_that_change_a_program_are_told_apart(family, change):
    assert dataclasses.replace(family, **change).program_settings != family.program_settings


@FAMILIES
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"burstiness": 1.5}, "burstiness must be at most 1, not 1.5"),
        ({"label_noise": 1.0}, "label_noise must be less than 1"),
        ({"zipf_exponent": -1.0}, "zipf_exponent must be a number from 0"),
        ({"fixed_labels": -0.1}, "fixed_labels must be a number from 0"),
        ({"burstiness": 0.5, "sequence_length": 8}, "burstiness = 0.5 needs .*sequence_length of at least 9, not 8"),
        ({"burstiness": 0.5, "num_classes": 2}, "burstiness = 0.5 needs .*num_classes of at least 3, not 2"),
        ({"fixed_labels": 0.01}, "fixed_labels = 0.01 is no class of"),
    ],
)
def test_values_out_of_range_are_refused(family, settings, message):
    with pytest.raises(UsageError, match=f"{family.gin_name}.{message}"):
        dataclasses.replace(family, **settings)


def test_data_that_cannot_give_the_classes_are_refused(toy_dataset):
    random = ProjectedImages("random", input_shape=(4,), sequence_length=9, burstiness=0.5)
    with pytest.raises(UsageError, match="'random', train split, has other classes in each group"):
        random.load()
    with pytest.raises(UsageError, match="no class means: leave out TaskDistribution.within_class_variation"):
        dataclasses.replace(random, burstiness=0.0, within_class_variation=0.5).load()
    labels = np.minimum(toy_dataset.train.labels, 8)
    data = BaseDataset("few", Split(toy_dataset.train.inputs, labels), toy_dataset.test, 0.0, 1.0, (9,), 10)
    with pytest.raises(UsageError, match="no example of class 9"):
        dataclasses.replace(IMAGES, zipf_exponent=1.0).sampler(data.train)
