import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation.meta_test import MetaTest, meta_test
from gpicl_flax.models import LSTM, SequenceModel
from gpicl_flax.references import OnlineSGD
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks import augmentation, keys
from gpicl_flax.tasks.datasets import sampler
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches

TASKS = ProjectedImages(input_shape=(9,), task_batch_size=8, sequence_length=6, num_tasks=5, permute_labels_prob=0.0)


class Oracle(SequenceModel):
    """Knows every label: what it is told at position t, it predicts at t."""

    def __call__(self, inputs, labels):
        return 20.0 * jax.nn.one_hot(labels, self.num_classes)


class KnowsBase(SequenceModel):
    """Ignores the context and always says class 3."""

    def __call__(self, inputs, labels):
        return jnp.broadcast_to(5.0 * jax.nn.one_hot(3, self.num_classes), (*labels.shape, self.num_classes))


def run(model, dataset, params=None, tasks=TASKS, data=1, seed=0, placement="auto", **settings):
    mesh = partitioning.MeshShape(data=data).build()
    with jax.set_mesh(mesh):
        curves = meta_test(
            model,
            params or {},
            TaskBatches(tasks, tasks.projection_spec((9,)), mesh, placement),
            [dataset],
            MetaTest(**settings),
            seed,
        )
    return {curve["tasks"]: curve for curve in curves}


def lstm_params(model):
    from flax import linen as nn

    return nn.unbox(model.init(jax.random.key(0), np.zeros((1, 6, 9)), np.zeros((1, 6), int)))["params"]


def test_an_oracle_is_right_everywhere_and_its_intervals_know_their_size(toy_dataset):
    curves = run(Oracle(), toy_dataset, num_sequences=50)
    for curve in curves.values():
        assert curve["accuracy"] == [1.0] * 6 == curve["accuracy_high"]
        # Wilson's lower end at n of n is n / (n + z^2).
        np.testing.assert_allclose(curve["accuracy_low"], 50 / (50 + 1.959964**2), rtol=1e-5)
        np.testing.assert_allclose(curve["loss"], 0, atol=1e-6)


def test_only_test_examples_are_used(toy_dataset):
    """Test pixels of the toy dataset are far above the training mean, so normalised inputs must be positive."""

    class Spy(SequenceModel):
        def __call__(self, inputs, labels):
            # Undo nothing: the projection is linear, so the norm tells bright images from dark ones.
            bright = jnp.linalg.norm(inputs, axis=-1, keepdims=True) > 4
            return jnp.where(bright, 20.0, -20.0) * jax.nn.one_hot(labels, self.num_classes)

    test_norm = np.linalg.norm((toy_dataset.test.inputs - toy_dataset.mean) / toy_dataset.std, axis=1)
    train_norm = np.linalg.norm((toy_dataset.train.inputs - toy_dataset.mean) / toy_dataset.std, axis=1)
    assert train_norm.mean() < 4 < test_norm.min()
    assert np.mean(run(Spy(), toy_dataset, num_sequences=200)["unseen"]["accuracy"]) > 0.9


def test_seen_tasks_keep_their_bias_and_unseen_tasks_always_permute(toy_dataset):
    often_three = np.where(np.arange(120) % 2, 3, toy_dataset.test.labels).astype(np.int32)
    dataset = dataclasses.replace(toy_dataset, test=Split(toy_dataset.test.inputs, often_three))
    share = np.mean(often_three == 3)
    assert share > 0.5
    curves = run(KnowsBase(), dataset, num_sequences=4000, batch_size=4000)
    # Training tasks are all biased here: class 3 stays class 3. Unseen ones put any class there.
    np.testing.assert_allclose(np.mean(curves["seen"]["accuracy"]), share, atol=0.015)
    np.testing.assert_allclose(np.mean(curves["unseen"]["accuracy"]), 0.1, atol=0.015)


@pytest.mark.parametrize("per_task", [1, 2])
def test_seen_and_unseen_tasks_are_exactly_those_of_their_ids(toy_dataset, per_task):
    """What the model is shown, against tasks made one by one from the seed that training uses."""
    shown = []

    class Recorder(SequenceModel):
        def __call__(self, inputs, labels):
            jax.debug.callback(lambda *x: shown.append([np.array(a) for a in x]), inputs, labels)
            return jnp.zeros((*labels.shape, self.num_classes))

    tasks = dataclasses.replace(TASKS, permute_labels_prob=0.5)
    settings = {"num_sequences": 12, "batch_size": 12, "sequences_per_task": per_task}
    run(Recorder(), toy_dataset, tasks=tasks, seed=3, **settings)
    jax.effects_barrier()
    indices = sampler.draw_example_indices(np.random.default_rng(3), 12, 6, 120)
    images = (toy_dataset.test.inputs[indices] - np.float64(toy_dataset.mean)) / toy_dataset.std
    numbers = np.arange(12) // per_task
    for (inputs, labels), ids, p in zip(shown, (numbers % 5, 2**31 + numbers), (0.5, 1.0), strict=True):
        for row, task_id in enumerate(ids):
            task = augmentation.make_task(
                keys.task_key(3),
                np.uint32(task_id),
                num_coordinates=9,
                num_features=9,
                num_classes=10,
                permute_labels_prob=p,
            )
            np.testing.assert_allclose(inputs[row], images[row] @ np.asarray(task.projection, np.float64), atol=1e-4)
            np.testing.assert_array_equal(labels[row], task.label_permutation[toy_dataset.test.labels[indices[row]]])


def test_sequences_must_divide_into_tasks_that_can_be_replayed():
    with pytest.raises(UsageError, match="not a multiple"):
        MetaTest(num_sequences=10, sequences_per_task=4)
    several = MetaTest(num_sequences=8, sequences_per_task=4)
    Run(meta_test=several)
    Run(meta_test=several, tasks=ProjectedImages(num_tasks=None, projection="span"))
    with pytest.raises(UsageError, match="projection = 'span'"):
        Run(meta_test=several, tasks=ProjectedImages(num_tasks=None))


@pytest.mark.slow
def test_tasks_of_the_gram_form_cannot_be_replayed(toy_dataset):
    model = LSTM(hidden_size=4)
    tasks = dataclasses.replace(TASKS, num_tasks=None, projection="gram")
    curves = run(model, toy_dataset, lstm_params(model), tasks=tasks, num_sequences=400)
    assert curves.keys() == {"unseen"}
    # Untrained, the model does as well on tasks of the other form, within its intervals.
    other = run(model, toy_dataset, lstm_params(model), num_sequences=400)["unseen"]
    assert other["loss_low"][-1] < curves["unseen"]["loss_high"][-1]
    assert curves["unseen"]["loss_low"][-1] < other["loss_high"][-1]


def test_losses_have_students_intervals(toy_dataset):
    model = LSTM(hidden_size=4)
    curves = run(model, toy_dataset, lstm_params(model), num_sequences=9)
    wide = run(model, toy_dataset, lstm_params(model), num_sequences=900)
    for curve in (curves["seen"], wide["seen"]):
        low, mean, high = (np.array(curve[key]) for key in ("loss_low", "loss", "loss_high"))
        assert (low < mean).all() and (mean < high).all()
        np.testing.assert_allclose(mean - low, high - mean, rtol=1e-6)
    ratio = (np.array(curves["seen"]["loss_high"]) - curves["seen"]["loss"]) / (
        np.array(wide["seen"]["loss_high"]) - wide["seen"]["loss"]
    )
    expected = 10 * scipy.stats.t.ppf(0.975, 8) / scipy.stats.t.ppf(0.975, 899)
    assert expected / 2 < np.median(ratio) < expected * 2


@pytest.mark.parametrize(
    ("batch_size", "data"),
    [(8, 4), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((7, 1), (100, 1), (30, 8)))],
)
def test_batches_and_devices_do_not_change_the_result(toy_dataset, batch_size, data):
    model = LSTM(hidden_size=4)
    params = lstm_params(model)
    expected = run(model, toy_dataset, params, num_sequences=30, batch_size=30)
    found = run(model, toy_dataset, params, num_sequences=30, batch_size=batch_size, data=data)
    for kind in ("seen", "unseen"):
        np.testing.assert_allclose(found[kind]["loss"], expected[kind]["loss"], rtol=1e-5)
        np.testing.assert_allclose(found[kind]["accuracy"], expected[kind]["accuracy"], atol=0.05)


@pytest.mark.parametrize("data", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_examples_that_the_host_gathers_give_the_same_result_bit_for_bit(toy_dataset, data):
    model = LSTM(hidden_size=4)
    params = lstm_params(model)
    on_device, on_host = (
        run(model, toy_dataset, params, num_sequences=30, batch_size=16, data=data, placement=placement)
        for placement in ("device", "host")
    )
    assert on_device == on_host


def test_a_sequence_of_a_grouped_dataset_resamples_one_group(toy_dataset):
    """Three different points at the most among the six of a sequence, and all three in some."""
    shown = []

    class Recorder(SequenceModel):
        def __call__(self, inputs, labels):
            jax.debug.callback(lambda x: shown.append(np.array(x)), inputs)
            return jnp.zeros((*labels.shape, self.num_classes))

    dataset = dataclasses.replace(toy_dataset, test=dataclasses.replace(toy_dataset.test, group_size=3))
    run(Recorder(), dataset, num_sequences=16, batch_size=16)
    jax.effects_barrier()
    counts = [len(np.unique(sequence.round(4), axis=0)) for sequence in shown[0]]
    assert max(counts) == 3


def test_it_is_a_function_of_the_seed(toy_dataset):
    model = LSTM(hidden_size=4)
    params = lstm_params(model)
    first, again, other = (run(model, toy_dataset, params, num_sequences=30, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_one_sequence_has_a_curve_without_a_loss_interval(toy_dataset):
    curve = run(Oracle(), toy_dataset, num_sequences=1)["seen"]
    assert curve["loss_low"] == curve["loss"] == curve["loss_high"]


@pytest.mark.slow
def test_a_learner_draws_the_same_on_any_number_of_devices_and_anew_in_every_batch(toy_dataset):
    settings = {"num_sequences": 32, "batch_size": 16}
    one, eight = (run(OnlineSGD(), toy_dataset, data=data, **settings)["unseen"] for data in (1, 8))
    np.testing.assert_allclose(one["loss"], eight["loss"], rtol=1e-5)
    assert run(OnlineSGD(), toy_dataset, seed=1, **settings)["unseen"]["loss"] != one["loss"]

    class Draws(SequenceModel):
        """Is right with probability 1/2 at all positions of a sequence."""

        def __call__(self, inputs, labels):
            right = jax.random.bernoulli(self.make_rng("learner"), 0.5, (len(inputs), 1, 1))
            return (2.0 * right - 1) * jax.nn.one_hot(labels, self.num_classes)

    accuracy = run(Draws(), toy_dataset, num_sequences=400, batch_size=1)["unseen"]["accuracy"][0]
    assert 0.4 < accuracy < 0.6
