import dataclasses

import jax
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.curriculum import Curriculum
from gpicl_flax.training.state import init_states
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches

TASKS = ProjectedImages(
    input_shape=(9,), task_batch_size=16, sequence_length=6, num_tasks=None, permute_labels_prob=1.0, projection="span"
)
SHORT = Curriculum(sequence_length=lambda step: 3.4)


def metrics_of(dataset, tasks=TASKS, curriculum=None, steps=4, batch_tasks=None, accumulation=1):
    """Metrics [steps] of a short training."""
    model, optimizer, projection = LSTM(hidden_size=16), optax.sgd(0.3), tasks.projection_spec((9,))
    mesh = partitioning.MeshShape(data=1).build()
    with jax.set_mesh(mesh):
        state = init_states(model, [optimizer], tasks, seeds=[0], mesh=mesh)
        task_batches = TaskBatches(tasks, projection, mesh)
        train_steps = make_train_steps(model, optimizer, task_batches, curriculum=curriculum, accumulation=accumulation)
        data = task_batches.put_on_mesh(dataset, dataset.train).data
        batch = next(TrainingBatches([Stream(batch_tasks or tasks, seed=0)], dataset.train, steps_per_batch=steps))
        batch = {name: x[..., : tasks.sequence_length] if x.ndim == 4 else x for name, x in batch.items()}
        run_inputs = PerRunInputs(np.zeros(1, np.uint32), np.full(1, tasks.permute_labels_prob, np.float32))
        _, metrics, _ = train_steps(state, run_inputs, data, partitioning.shard_stacked_batches(mesh, batch))
        return {name: values[:, 0] for name, values in jax.device_get(metrics).items()}


def assert_equal(found, expected, rtol=1e-4):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.slow
def test_short_sequences_are_trained_on_as_if_there_were_no_more(toy_dataset):
    short = metrics_of(toy_dataset, dataclasses.replace(TASKS, sequence_length=3), batch_tasks=TASKS)
    masked = metrics_of(toy_dataset, curriculum=SHORT, accumulation=4)
    assert_equal(masked, short)


@pytest.mark.slow
def test_the_length_follows_the_schedule_from_one_to_all(toy_dataset):
    lengths = Curriculum(sequence_length=optax.linear_schedule(-5, 7, 12))
    assert [int(lengths.last_position(step, 6)) + 1 for step in range(0, 20)] == [1] * 7 + [2, 3, 4, 5] + [6] * 9
    switched = Curriculum(sequence_length=optax.piecewise_constant_schedule(3, {2: 2.0}))  # 3 examples, then 6
    losses = metrics_of(toy_dataset, curriculum=switched, steps=3)["loss"]
    short = metrics_of(toy_dataset, curriculum=SHORT, steps=3)["loss"]
    np.testing.assert_allclose(losses[:2], short[:2], rtol=1e-5)
    assert abs(losses[2] - short[2]) > 1e-4


def test_classes_are_merged_and_become_all(toy_dataset):
    labels = np.arange(10)[None]
    merged = Curriculum(num_classes=optax.linear_schedule(1, 13, 12))
    for step, classes in ((0, 1), (2, 3), (9, 10), (50, 10)):
        np.testing.assert_array_equal(merged.merge_classes(step, labels, 10), labels % classes)
    one = metrics_of(toy_dataset, curriculum=Curriculum(num_classes=lambda step: 1.2), steps=30)
    assert one["accuracy"][-1] == 1.0 and one["loss"][-1] < 0.1


@pytest.mark.slow
def test_the_bias_takes_the_place_of_the_tasks_own(toy_dataset):
    biased = metrics_of(toy_dataset, dataclasses.replace(TASKS, permute_labels_prob=0.2))
    scheduled = metrics_of(toy_dataset, curriculum=Curriculum(permute_labels_prob=lambda step: 0.2))
    assert_equal(scheduled, biased, rtol=1e-6)
    assert (scheduled["loss"] != metrics_of(toy_dataset)["loss"]).any()


def test_what_is_no_schedule_is_refused():
    with pytest.raises(UsageError, match="Curriculum.num_classes must be a schedule.*not 3"):
        Curriculum(num_classes=3)
