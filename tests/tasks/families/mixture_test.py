"""A mixture of families: its sequences are those of its parts, and so are its levels of chance."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation.meta_test import MetaTest, meta_test
from gpicl_flax.models import LSTM
from gpicl_flax.records.criteria import Criteria
from gpicl_flax.references import by_family
from gpicl_flax.tasks.families import (
    FunctionClasses,
    GaussianClasses,
    Mixture,
    NoisyLinearRegression,
    ProjectedImages,
    Recall,
    Sequences,
)
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.tasks.targets import Classes, Normals, Numbers
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches

T = 6
GAUSSIANS = GaussianClasses(num_classes=5, dimensions=4, sequence_length=T)
RECALL = Recall(num_pairs=3, dimensions=7, num_classes=3)
IMAGES = ProjectedImages("toy", input_shape=(9,), sequence_length=T, projection="span")
MIXTURE = Mixture(families=[GAUSSIANS, RECALL], weights=[3.0, 1.0], sequence_length=T)
IDS = np.arange(40, dtype=np.uint32)


def made(family, ids=IDS, seed=0, drawing=None, data=(), **batch):
    batch = {"task_ids": ids, "sequence_seeds": ids + 5} | batch
    drawing = drawing or tuple(None for _ in getattr(family, "families", ()))
    numbers = jax.tree.map(np.float32, family.numbers())
    make = jax.jit(
        lambda seed, batch: family.make_sequences(drawing, seed, batch, data, numbers, max_bytes=2**20, num_shards=1)
    )
    return jax.tree.map(np.asarray, make(np.uint32(seed), batch))


def test_a_task_is_that_of_its_family_with_the_same_id():
    mixed, parts = made(MIXTURE), [made(GAUSSIANS), made(RECALL)]
    chosen = np.asarray(MIXTURE.part_of(np.uint32(0), IDS))
    assert set(chosen) == {0, 1} and mixed.inputs.shape == (40, T, 7)
    for index, part in enumerate(parts):
        rows, width = chosen == index, part.inputs.shape[2]
        np.testing.assert_allclose(mixed.inputs[rows, :, :width], part.inputs[rows], rtol=1e-6)
        assert (mixed.inputs[rows, :, width:] == 0).all()
        np.testing.assert_array_equal(mixed.targets[rows], part.targets[rows])
        for name in ("shown", "counted"):
            own = getattr(part, name)
            np.testing.assert_array_equal(getattr(mixed, name)[rows], True if own is None else own[rows])


def test_the_family_is_drawn_by_weight_and_does_not_depend_on_the_batch():
    ids = np.arange(20_000, dtype=np.uint32)
    chosen = np.asarray(MIXTURE.part_of(np.uint32(0), ids))
    assert scipy.stats.binomtest(int(chosen.sum()), len(ids), 0.25).pvalue > 1e-3
    np.testing.assert_array_equal(MIXTURE.part_of(np.uint32(0), ids[[7, 3]]), chosen[[7, 3]])
    assert (np.asarray(MIXTURE.part_of(np.uint32(1), ids)) != chosen).mean() > 0.3
    equal = dataclasses.replace(MIXTURE, families=[GAUSSIANS, RECALL, GAUSSIANS], weights=None)
    counts = np.bincount(np.asarray(equal.part_of(np.uint32(0), ids)))
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert equal.labels == ("GaussianClasses 1", "Recall", "GaussianClasses 2")
    never = dataclasses.replace(MIXTURE, weights=[0.0, 1.0])
    assert (np.asarray(never.part_of(np.uint32(0), ids)) == 1).all()


def test_masks_are_left_out_where_no_family_has_them():
    mixture = Mixture(families=[GAUSSIANS, dataclasses.replace(GAUSSIANS, noise=0.1)], sequence_length=T)
    mixed = made(mixture)
    assert mixed.shown is None and mixed.counted is None and mixed.inputs.shape == (40, T, 4)


def test_the_level_of_chance_is_the_weighted_mean_of_the_families():
    targets = MIXTURE.targets
    assert targets.num_classes == 5 and targets.chance_loss == pytest.approx(0.75 * math.log(5) + 0.25 * math.log(3))
    assert targets.chance_score == pytest.approx(0.75 / 5 + 0.25 / 3)
    info = MIXTURE.run_info()
    assert info["families"] == {"GaussianClasses": 0.75, "Recall": 0.25} and info["num_classes"] == 5
    criteria = Criteria.required(info)
    parts = [Criteria.required(part.run_info()) for part in (GAUSSIANS, RECALL)]
    for name in ("threshold", "chance_loss", "chance_score"):
        mean = 0.75 * getattr(parts[0], name) + 0.25 * getattr(parts[1], name)
        assert getattr(criteria, name) == pytest.approx(mean), name
    assert criteria.score == "accuracy" and criteria.unit == "nats"
    # With equal numbers of classes there is nothing to mix.
    same = Mixture(families=[GAUSSIANS, dataclasses.replace(RECALL, num_classes=5)], sequence_length=T)
    assert same.targets == Classes(5) and "targets" not in same.run_info()


@pytest.mark.parametrize("predicts", ["numbers", "normals"])
def test_numbers_have_mean_levels_as_well(predicts):
    parts = [NoisyLinearRegression(dimensions=d, sequence_length=T, predicts=predicts) for d in (2, 6)]
    mixture = Mixture(families=parts, weights=[1.0, 3.0], sequence_length=T)
    assert isinstance(mixture.targets, Normals if predicts == "normals" else Numbers)
    found, own = Criteria.required(mixture.run_info()), [Criteria.required(part.run_info()) for part in parts]
    for name in ("threshold", "chance_loss", "chance_score"):
        assert getattr(found, name) == pytest.approx(0.25 * getattr(own[0], name) + 0.75 * getattr(own[1], name))


def test_a_base_dataset_goes_to_the_family_that_has_one(toy_dataset, monkeypatch):
    monkeypatch.setattr(ProjectedImages, "load", lambda self, name=None: toy_dataset)
    gaussians = dataclasses.replace(GAUSSIANS, num_classes=10)
    mixture = Mixture(families=[gaussians, IMAGES], sequence_length=T, num_tasks=64, task_batch_size=8)
    assert mixture.has_base_datasets and mixture.data_name == "toy"
    data = mixture.load()
    drawing = mixture.drawing(data)
    on_host = next(TrainingBatches([Stream(mixture, 0)], data.train, gather=True))
    indexed = next(TrainingBatches([Stream(mixture, 0)], data.train))
    assert on_host.keys() == {"task_ids", "sequence_seeds", "inputs", "labels"}
    assert indexed.keys() == {"task_ids", "sequence_seeds", "example_indices"}
    np.testing.assert_array_equal(toy_dataset.train.inputs[indexed["example_indices"]], on_host["inputs"])
    placed = mixture.device_data(data, drawing)
    batch = {name: array[0, 0] for name, array in on_host.items()}
    mixed = made(mixture, drawing=drawing, data=placed, **batch)
    images = made(mixture.families[1], drawing=drawing[1], data=placed, **batch)
    others = made(mixture.families[0], ids=batch["task_ids"], sequence_seeds=batch["sequence_seeds"])
    is_image = np.asarray(mixture.part_of(np.uint32(0), batch["task_ids"]))[:, None] == 1
    assert 0 < is_image.mean() < 1
    np.testing.assert_array_equal(mixed.targets, np.where(is_image, images.targets, others.targets))
    np.testing.assert_allclose(mixed.inputs[is_image[:, 0]], images.inputs[is_image[:, 0]], atol=1e-6)
    info = mixture.data_run_info(data, drawing)
    assert info["base_dataset"]["train_examples"] == 200 and info["projection"]["form"] == "span"
    assert mixture.read_drawing(info, "run") == drawing


@pytest.mark.slow
def test_a_meta_test_has_the_curves_of_a_mixture_and_its_references():
    mesh = partitioning.MeshShape(data=1).build()
    model = LSTM(num_classes=5, hidden_size=4)
    with jax.set_mesh(mesh):
        params = model.init(jax.random.key(0), np.zeros((1, T, 7)), np.zeros((1, T), int))
        batches = TaskBatches(MIXTURE, (None, None), mesh)
        from flax import linen as nn

        curves = meta_test(model, nn.unbox(params)["params"], batches, [MIXTURE.load()], MetaTest(num_sequences=60), 0)
    for curve in curves:
        assert curve["base_dataset"] == "mixture" and len(curve["accuracy"]) == T
        assert curve["references"].keys() == {
            "GaussianClasses: Bayes", "GaussianClasses: nearest class mean", "Recall: look-up",
        }  # fmt: skip
        assert all(np.isfinite(own["accuracy"]).all() for own in curve["references"].values())
        assert np.isfinite(curve["references"]["GaussianClasses: Bayes"]["loss"]).all()


@pytest.mark.slow
def test_references_of_a_family_see_its_own_inputs_and_classes():
    found = by_family.references(MIXTURE)
    mixed, alone = made(MIXTURE), made(GAUSSIANS)
    rows = np.asarray(MIXTURE.part_of(np.uint32(0), IDS)) == 0
    own = by_family.references(GAUSSIANS)["Bayes"].predict(np.uint32(0), Sequences(*alone[:2]))
    np.testing.assert_allclose(found["GaussianClasses: Bayes"].predict(0, mixed)[rows], own[rows], atol=1e-5)

    look_up = found["Recall: look-up"]
    scores = np.asarray(look_up.predict(0, mixed))
    assert scores.shape == (40, T, 5)
    measured = look_up.measure(MIXTURE.targets, scores, mixed.targets)["accuracy"]
    assert np.asarray(measured)[~rows][:, 3:].all()
    # Of a sequence of the other family, it learns from the classes that it knows alone.
    unknown = mixed._replace(targets=np.where(mixed.targets >= 3, 4, mixed.targets))
    np.testing.assert_array_equal(look_up.predict(0, unknown), scores)
    # Answers that are hidden from the model are hidden from it, too.
    asked = mixed._replace(targets=np.where(mixed.shown, mixed.targets, 0))
    np.testing.assert_array_equal(found["GaussianClasses: Bayes"].predict(0, asked)[~rows],
                                  found["GaussianClasses: Bayes"].predict(0, mixed)[~rows])  # fmt: skip


def test_with_k_tasks_no_reference_weighs_them_all():
    bounded = dataclasses.replace(MIXTURE, families=[GAUSSIANS, RECALL], num_tasks=8)
    assert by_family.references(bounded).keys() == {
        "GaussianClasses: conjugate", "GaussianClasses: nearest class mean", "Recall: look-up",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": []}, "Mixture.families is empty"),
        ({"sequence_length": 7}, "Mixture.sequence_length = 7, but sequences of GaussianClasses have 6 examples"),
        ({"families": [MIXTURE]}, "Mixture.families has a Mixture"),
        ({"families": [IMAGES, IMAGES]}, "several families with a base dataset"),
        ({"weights": [1.0]}, r"Mixture.weights must have a number for each of the 2 families.*\[1.0\]"),
        ({"weights": [0.0, 0.0]}, "not only zeros"),
        ({"weights": [1.0, -1.0]}, r"Mixture.weights\[1\] must be a number from 0 on"),
        ({"families": [3]}, r"Mixture.families\[0\]"),
        (
            {"families": [GAUSSIANS, FunctionClasses(sequence_length=T)], "weights": None},
            "GaussianClasses has classes and FunctionClasses has numbers",
        ),
        (
            {"families": [dataclasses.replace(GAUSSIANS, num_tasks=4), RECALL]},
            "GaussianClasses.num_tasks = 4 has no effect in a mixture; set Mixture.num_tasks instead",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(MIXTURE, **settings)


def test_the_axes_of_its_families_hold(toy_dataset, monkeypatch):
    monkeypatch.setattr(ProjectedImages, "load", lambda self, name=None: toy_dataset)
    fixed = dataclasses.replace(GAUSSIANS, num_classes=10, fixed_labels=0.5, noise=0.0)
    zipf = dataclasses.replace(IMAGES, zipf_exponent=3.0, permute_labels_prob=0.0, label_noise=0.3)
    mixture = Mixture(families=[fixed, zipf], sequence_length=T, num_tasks=512, task_batch_size=512)
    data = mixture.load()
    stored = next(TrainingBatches([Stream(mixture, 0)], data.train, gather=True))
    batch = {name: array[0, 0] for name, array in stored.items()}
    assert batch.keys() == {"task_ids", "sequence_seeds", "inputs", "labels", "random_labels"}
    drawing = mixture.drawing(data)
    mixed = made(mixture, batch.pop("task_ids"), drawing=drawing, data=mixture.device_data(data, drawing), **batch)
    is_image = np.asarray(mixture.part_of(np.uint32(0), stored["task_ids"][0, 0])) == 1
    # A class with a fixed label has one mean in all tasks; others have as many as there are tasks.
    means = [np.unique(mixed.inputs[~is_image][mixed.targets[~is_image] == c].round(4), axis=0) for c in (0, 9)]
    assert len(means[0]) == 1 and len(means[1]) > 10
    # Class 0 has a share of 0.83 of the images, of which 0.7 keep their label.
    share = (mixed.targets[is_image] == 0).mean()
    assert share == pytest.approx(0.7 * 1 / sum((c + 1.0) ** -3 for c in range(10)) + 0.03, abs=0.05)
