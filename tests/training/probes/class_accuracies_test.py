"""The accuracies in context and in weights, of predictors that know only the one or the other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM, SequenceModel
from gpicl_flax.references.nearest_neighbours import nearest_neighbours
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.families import GaussianClasses, ProjectedImages, Recall
from gpicl_flax.training import partitioning
from gpicl_flax.training.probes.class_accuracies import (
    absent_query_classes,
    check,
    make_class_accuracies,
    two_way_classes,
)
from gpicl_flax.training.state import init_states
from gpicl_flax.training.task_batches import TaskBatches

C, SEED = 12, 5
GAUSSIAN = GaussianClasses(
    num_classes=C, dimensions=32, noise=0.1, sequence_length=9, task_batch_size=16, num_tasks=4, fixed_labels=0.5,
    burstiness=0.9, label_noise=0.5,
)  # fmt: skip
IMAGES = ProjectedImages(input_shape=(9,), sequence_length=9, task_batch_size=16, num_tasks=1, fixed_labels=0.5)


class InContext(SequenceModel):
    """Answers with the class of the nearest example before."""

    def __call__(self, inputs, labels):
        return nearest_neighbours(inputs, jax.nn.one_hot(labels, self.num_classes), 1)


class FirstLabel(SequenceModel):
    """Answers with the first label that it saw."""

    def __call__(self, inputs, labels):
        return jnp.broadcast_to(jax.nn.one_hot(labels[:, :1], self.num_classes), (*labels.shape, self.num_classes))


class InWeights(SequenceModel):
    """Knows the means of the fixed classes, and answers with the nearest."""

    def __call__(self, inputs, labels):
        means = GAUSSIAN.draw_task(keys.class_key(SEED))[: GAUSSIAN.num_fixed]
        scores = -jnp.square(inputs[:, :, None] - means).sum(axis=-1)
        return jnp.pad(scores, ((0, 0), (0, 0), (0, C - GAUSSIAN.num_fixed)), constant_values=-jnp.inf)


def measure(model, family, dataset=None, params=None, seeds=(SEED,), count=400):
    mesh = partitioning.MeshShape(data=1).build(len(seeds))
    with jax.set_mesh(mesh):
        data = dataset or family.load()
        batches = TaskBatches(family, family.drawing(data), mesh, num_members=len(seeds))
        train = batches.put_on_mesh(data, data.train)
        numbers = jax.tree.map(lambda x: np.full(len(seeds), x, np.float32), family.numbers())
        call = make_class_accuracies(model, batches, train, seeds, count, numbers, [family] * len(seeds))
        return jax.device_get(call(params or {}))


def test_who_reads_the_context_is_right_in_context_alone():
    found = measure(InContext(num_classes=C), GAUSSIAN)
    assert found["in_context_accuracy"][0] == 1 and found["in_weights_accuracy"][0] == 0


def test_who_knows_the_fixed_classes_is_right_in_weights_alone():
    found = measure(InWeights(num_classes=C), GAUSSIAN)
    # Unseen tasks have other means, so that knowing these is no better than chance.
    assert found["in_weights_accuracy"][0] == 1 and found["in_context_accuracy"][0] < 0.2


def test_chance_in_context_is_one_half_between_the_labels_shown():
    assert measure(FirstLabel(num_classes=C), GAUSSIAN)["in_context_accuracy"][0] == pytest.approx(0.5, abs=0.08)


def test_images_without_variation_are_recognised_in_context():
    labels = np.arange(50, dtype=np.int32) % 10
    prototypes = np.random.default_rng(0).integers(0, 256, (10, 9), dtype=np.uint8)
    split = Split(prototypes[labels], labels)
    data = BaseDataset("prototypes", split, split, 128.0, 74.0, (9,), 10)
    found = measure(InContext(num_classes=10), IMAGES, data)
    assert found["in_context_accuracy"][0] == 1 and found["in_weights_accuracy"][0] == 0


@pytest.mark.slow
def test_members_do_not_change_each_other():
    model = LSTM(num_classes=C, hidden_size=8)

    def params(seeds):
        mesh = partitioning.MeshShape(data=1).build(len(seeds))
        with jax.set_mesh(mesh):
            return init_states(model, [optax.sgd(0.1)] * len(seeds), GAUSSIAN, seeds=seeds, mesh=mesh).params

    both = measure(model, GAUSSIAN, params=params((5, 6)), seeds=(5, 6), count=64)
    for index, seed in enumerate((5, 6)):
        alone = measure(model, GAUSSIAN, params=params((seed,)), seeds=(seed,), count=64)
        for name in both:
            np.testing.assert_allclose(both[name][index], alone[name][0], atol=2 / 64)


@pytest.mark.parametrize(("length", "own"), [(9, 4), (6, 2)])
def test_a_two_way_context_has_the_query_and_one_other_class(length, own):
    classes = two_way_classes(np.random.default_rng(0), 3000, length, C)
    assert classes.dtype == np.int32
    assert ((classes[:, :-1] == classes[:, -1:]).sum(axis=1) == own).all()
    assert all(len(np.unique(row)) == 2 for row in classes)
    np.testing.assert_allclose(np.bincount(classes[:, -1]) / 3000, 1 / C, atol=0.02)
    np.testing.assert_allclose((classes[:, :-1] == classes[:, -1:]).mean(axis=0), own / (length - 1), atol=0.05)


def test_an_absent_query_has_a_fixed_class_that_no_example_has():
    classes = absent_query_classes(np.random.default_rng(0), 3000, 9, C, 4)
    assert (classes[:, :-1] != classes[:, -1:]).all()
    np.testing.assert_allclose(np.bincount(classes[:, -1], minlength=C)[:4] / 3000, 1 / 4, atol=0.03)
    of_first = np.bincount(classes[classes[:, -1] == 0, :-1].ravel(), minlength=C)
    np.testing.assert_allclose(of_first[1:] / of_first.sum(), 1 / (C - 1), atol=0.02)
    assert classes[:, -1].max() == 3


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Recall(), "Recall has no classes of fixed labels; set it to False"),
        (dataclasses.replace(GAUSSIAN, fixed_labels=0.0), "set GaussianClasses.fixed_labels above 0"),
        (dataclasses.replace(GAUSSIAN, burstiness=0.0, sequence_length=2), "sequence_length of at least 3"),
        (dataclasses.replace(IMAGES, num_tasks=None, input_shape=(14, 14, 1)), "a bounded TaskDistribution.num_tasks"),
    ],
)
def test_families_without_such_accuracies_are_refused(family, message):
    with pytest.raises(UsageError, match=message):
        check(family)
