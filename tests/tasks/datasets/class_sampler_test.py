"""Examples that are drawn by their classes, and random labels."""

import collections
import pickle

import numpy as np

from gpicl_flax.tasks.class_distribution import ClassDistribution
from gpicl_flax.tasks.datasets.class_sampler import ClassSampler, RandomLabels
from gpicl_flax.tasks.datasets.sampler import ExampleSampler

LABELS = np.array([2, 0, 1, 0, 1, 1, 2, 0, 1, 1])  # three, five and two examples
SAMPLER = ClassSampler.from_labels(ClassDistribution(3), LABELS, "toy")


def test_examples_are_of_their_classes_and_uniform_without_replacement():
    classes = np.tile([1, 0, 1, 2, 1], (20_000, 1))
    indices = SAMPLER.examples_of(np.random.default_rng(0), classes)
    np.testing.assert_array_equal(LABELS[indices], classes)
    found = collections.Counter(map(tuple, indices[:, [0, 2, 4]]))
    assert len(found) == 5 * 4 * 3  # all ordered triples of the five, each as often
    np.testing.assert_allclose(np.array([*found.values()]) / 20_000, 1 / 60, rtol=0.25)
    np.testing.assert_allclose(np.bincount(indices[:, 1], minlength=10)[[1, 3, 7]] / 20_000, 1 / 3, rtol=0.05)


def test_a_class_that_comes_too_often_begins_anew():
    indices = SAMPLER.examples_of(np.random.default_rng(0), np.full((50, 7), 0))
    for row in indices:
        assert sorted(np.bincount(row, minlength=10)[[1, 3, 7]]) == [2, 2, 3]
        assert len(set(row[:3])) == len(set(row[3:6])) == 3


def test_batches_have_the_classes_of_the_distribution_and_depend_on_the_stream_alone():
    sampler = ClassSampler.from_labels(ClassDistribution(3, burstiness=1.0), LABELS, "toy")
    indices = sampler(np.random.default_rng(5), 40, 9)["example_indices"]
    assert indices.dtype == np.int32 and indices.shape == (40, 9)
    classes = LABELS[indices]
    assert ((classes[:, :-1] == classes[:, -1:]).sum(axis=1) == 3).all()
    again = pickle.loads(pickle.dumps(sampler))(np.random.default_rng(5), 40, 9)["example_indices"]
    np.testing.assert_array_equal(indices, again)
    assert (sampler(np.random.default_rng(6), 40, 9)["example_indices"] != indices).any()


def test_random_labels_have_their_rate_and_are_uniform_beside_the_same_examples():
    plain = ExampleSampler(1000)
    batch = RandomLabels(plain, 0.25, 4)(np.random.default_rng(0), 5000, 8)
    expected = plain(np.random.default_rng(0), 5000, 8)["example_indices"]
    np.testing.assert_array_equal(batch["example_indices"], expected)
    labels = batch["random_labels"]
    assert labels.dtype == np.int32
    np.testing.assert_allclose((labels >= 0).mean(axis=0), 0.25, atol=0.03)
    np.testing.assert_allclose(np.bincount(labels[labels >= 0]) / (labels >= 0).sum(), 1 / 4, atol=0.02)


def test_a_class_without_examples_is_refused(refused):
    refused(lambda: ClassSampler.from_labels(ClassDistribution(4), LABELS, "toy"), "toy", "no example of class 3")
