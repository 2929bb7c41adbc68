"""References on the host beside a model in its meta-test."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation import host_references
from gpicl_flax.evaluation.meta_test import MetaTest, meta_test
from gpicl_flax.models import SequenceModel
from gpicl_flax.references import by_family, on_host
from gpicl_flax.runs.run import resolve
from gpicl_flax.tasks.families import (
    FunctionClasses,
    GaussianClasses,
    Mixture,
    ProjectedImages,
    RandomFunctions,
    Recall,
)
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches

T = 12
GAUSSIANS = GaussianClasses(num_classes=3, dimensions=8, noise=0.3, sequence_length=T)


class Nothing(SequenceModel):
    """Predicts 0."""

    predictable: ClassVar[tuple[str, ...]] = ("classes", "numbers")

    def __call__(self, inputs, labels):
        return jnp.zeros((*labels.shape, self.num_outputs))


def curves(family, names, **settings):
    classes = family.targets.num_classes
    model = Nothing(num_classes=classes) if classes else Nothing(predicts=family.targets.predicts)
    drawing = family.drawing(family.load())
    mesh = partitioning.MeshShape(data=1).build()
    with jax.set_mesh(mesh):
        batches = TaskBatches(family, drawing, mesh)
        found = meta_test(model, {}, batches, [family.load()], MetaTest(references=names, **settings), 0)
    return {curve["tasks"]: curve for curve in found}


def drawn(family, count, ids):
    seeds = family.load().test.sampler(np.random.default_rng(0), count, T)["sequence_seeds"]
    batch = {"task_ids": ids(count), "sequence_seeds": seeds}
    drawing = family.drawing(family.load())
    return family.make_sequences(drawing, np.uint32(0), batch, (), family.numbers(), max_bytes=0, num_shards=1)


def test_they_are_measured_at_three_positions_of_the_first_sequences(monkeypatch):
    monkeypatch.setattr(host_references, "NUM_SEQUENCES", 16)
    found = curves(GAUSSIANS, ["SVM", "nearest class mean"], num_sequences=40, batch_size=16)
    for kind, ids in (("seen", GAUSSIANS.seen_task_ids), ("unseen", GAUSSIANS.unseen_task_ids)):
        own = found[kind]["references"]["SVM"]
        assert own["positions"] == [3, 6, 11] and own["num_sequences"] == 16
        sequences = drawn(GAUSSIANS, 40, ids)
        inputs, targets = (np.asarray(x)[:16] for x in sequences[:2])
        predicted = on_host.host_references(GAUSSIANS)["SVM"](inputs, targets, [3, 6, 11]).argmax(-1)
        right = predicted == targets[:, [3, 6, 11]]
        np.testing.assert_allclose(own["accuracy"], right.mean(axis=0))
        interval = scipy.stats.binomtest(int(right[:, 2].sum()), 16).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose([own["accuracy_low"][2], own["accuracy_high"][2]], [interval.low, interval.high])
        assert len(found[kind]["references"]["nearest class mean"]["accuracy"]) == T
    assert np.mean(found["unseen"]["references"]["SVM"]["accuracy"]) > 0.6


def test_numbers_have_squared_errors():
    family = FunctionClasses(function_class="sparse_linear", dimensions=4, sequence_length=T)
    own = curves(family, ["Lasso"], num_sequences=20)["unseen"]["references"]["Lasso"]
    assert own.keys() == {"loss", "loss_low", "loss_high", "positions", "num_sequences"} and own["num_sequences"] == 20
    assert own["loss"][-1] < 0.05 < own["loss"][0] and own["loss_low"][0] < own["loss"][0] < own["loss_high"][0]


def test_only_positions_that_count_are_measured_and_hidden_answers_are_not_shown():
    class Spied(Recall):
        """A family with a reference that keeps what it is given."""

    given = []

    @on_host.host_references.register
    def _(family: Spied):
        def predict(inputs, labels, positions):
            given.append(labels)
            return np.zeros((len(labels), len(positions), 3))

        return {"spy": predict}

    found = curves(Spied(num_pairs=6, dimensions=8, num_classes=3), ["spy"], num_sequences=8)
    assert found["unseen"]["references"]["spy"]["positions"] == [7, 9, 11] and len(given) == 2
    assert all((labels[:, 6:] == -1).all() and (labels[:, :6] >= 0).all() for labels in given)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (RandomFunctions(), ["logistic regression", "SVM", "random forest", "5 nearest neighbours"]),
        (ProjectedImages(), ["SVM"]),
        (GaussianClasses(), ["SVM"]),
        (FunctionClasses(function_class="linear"), []),
        (FunctionClasses(function_class="sparse_linear"), ["Lasso"]),
        (FunctionClasses(function_class="tree"), ["boosted trees"]),
        (FunctionClasses(function_class="relu_network"), ["gradient descent on the same network"]),
        (Recall(), []),
    ],
)
def test_each_family_has_its_own_and_none_by_default(family, names):
    assert list(on_host.host_references(family)) == names
    assert not by_family.references(family).keys() & {*names}
    assert not {*names} & by_family.chosen(family, None, "MetaTest.references").keys()
    assert by_family.chosen(family, names, "MetaTest.references", with_host=True) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic regression", "5 nearest neighbours"])
def test_classifiers_of_tables_learn(name):
    family = RandomFunctions(num_classes=2, dimensions=6, max_features=3, sequence_length=60)
    keys = jax.random.split(jax.random.key(0), 30)
    sequences = jax.jit(jax.vmap(lambda key: family.draw_sequence(family.draw_task(key), jax.random.fold_in(key, 1))))(
        keys
    )
    inputs, targets = np.asarray(sequences.inputs), np.asarray(sequences.targets)
    predicted = on_host.host_references(family)[name](inputs, targets, [59, 58, 57]).argmax(-1)
    assert (predicted == targets[:, [59, 58, 57]]).mean() > 0.65


def test_a_mixture_has_those_of_its_parts():
    mixture = Mixture(families=[GAUSSIANS, RandomFunctions(num_classes=5, sequence_length=T)], sequence_length=T)
    found = on_host.host_references(mixture)
    assert "GaussianClasses: SVM" in found and "RandomFunctions: random forest" in found
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(2, T, 100)), rng.integers(5, size=(2, T))
    probabilities = found["GaussianClasses: SVM"](inputs, labels, [T - 1])
    assert probabilities.shape == (2, 1, 5) and (probabilities[..., 3:] == 0).all()
    known = np.where(labels < 3, labels, -1)
    np.testing.assert_array_equal(
        probabilities[..., :3], on_host.host_references(GAUSSIANS)["SVM"](inputs[..., :8], known, [T - 1])
    )


def test_a_setting_that_cannot_have_them_says_so():
    bindings = ["Run.model = @LSTM()", "Run.tasks = @GaussianClasses()"]
    resolve(parse([], [*bindings, "MetaTest.references = ['SVM']"]))
    with pytest.raises(UsageError, match="Diagnostics.references names 'SVM', which runs on the host: only MetaTest"):
        resolve(parse([], [*bindings, "Training.diagnostics = @Diagnostics()", "Diagnostics.references = ['SVM']"]))
    with pytest.raises(UsageError, match="'lasso'; the references of GaussianClasses are: 'Bayes', .*, 'SVM'"):
        resolve(parse([], [*bindings, "MetaTest.references = ['lasso']"]))
