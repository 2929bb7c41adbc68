import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.families import NoisyLinearRegression
from gpicl_flax.tasks.families.data import SeedSampler
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches

TASKS = NoisyLinearRegression(sequence_length=6)


def draw(ids, seeds, tasks=TASKS, seed=0):
    """Inputs [B, T, X] and targets [B, T]."""
    batch = {"task_ids": np.asarray(ids, np.uint32), "sequence_seeds": np.asarray(seeds, np.uint32)}
    sequences = tasks.make_sequences(None, np.uint32(seed), batch, (), (), max_bytes=0, num_shards=1)
    assert sequences.shown is None and sequences.counted is None
    return np.asarray(sequences.inputs), np.asarray(sequences.targets)


def weights(task_id, seed=0):
    return np.asarray(TASKS.draw_task(jax.random.fold_in(keys.task_key(seed), task_id)), np.float64)


def test_a_target_is_the_product_with_the_weights_of_its_task_and_noise():
    ids = np.repeat(np.arange(500), 2)
    inputs, targets = draw(ids, np.arange(1000))
    assert inputs.dtype == targets.dtype == np.float32 and inputs.shape == (1000, 6, 8)
    all_weights = np.stack([weights(task_id) for task_id in range(500)])
    noise = targets - np.einsum("btx,bx->bt", inputs.astype(np.float64), all_weights[ids])
    for values, scale in ((all_weights, 1), (inputs, 1), (noise, 0.5)):
        assert scipy.stats.kstest(values.ravel() / scale, "norm").pvalue > 1e-3
    # Nothing of it depends on anything else.
    flat = np.concatenate([inputs.reshape(1000, -1), noise], axis=1)
    np.testing.assert_allclose(np.corrcoef(flat.T) - np.eye(54), 0, atol=0.15)
    np.testing.assert_allclose(targets.var(), TASKS.targets.variance, rtol=0.1)
    assert TASKS.targets.variance == 8.25


def test_without_noise_the_weights_are_all_there_is():
    inputs, targets = draw([3], [9], NoisyLinearRegression(noise=0.0, sequence_length=20))
    np.testing.assert_allclose(inputs[0] @ weights(3), targets[0], rtol=1e-4, atol=1e-5)


def test_a_task_depends_on_its_id_and_the_seed_alone_for_any_number_of_tasks():
    few, many = (dataclasses.replace(TASKS, num_tasks=count) for count in (4, 1024))
    for found in (draw([1, 3], [7, 8], few), draw([1, 3], [7, 8], many)):
        for one, other in zip(found, draw([1, 3], [7, 8]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.allclose(draw([1], [7])[1], draw([2], [7])[1])
    assert not np.allclose(draw([1], [7])[0], draw([1], [7], seed=1)[0])
    assert not np.allclose(draw([1], [7])[0], draw([1], [8])[0])
    # Seen and unseen tasks have the same inputs, so that only the tasks make a difference.
    np.testing.assert_array_equal(draw([1], [7])[0], draw([2**31 + 1], [7])[0])


@pytest.mark.parametrize("devices", [1, 4])
def test_sequences_do_not_depend_on_the_batch_and_the_devices(devices):
    ids, seeds = np.arange(8), np.arange(100, 108)
    mesh = partitioning.MeshShape(data=devices).build()
    task_batches = TaskBatches(TASKS, None, mesh)
    batch = {"task_ids": ids.astype(np.uint32), "sequence_seeds": seeds.astype(np.uint32)}
    with jax.set_mesh(mesh):
        made = jax.jit(lambda batch: task_batches.make_sequences(np.uint32(0), batch, (), ()))(
            partitioning.shard_batch(mesh, batch)
        )
    for row, (task_id, seed) in enumerate(zip(ids, seeds, strict=True)):
        for found, expected in zip(made[:2], draw([task_id], [seed]), strict=True):
            np.testing.assert_allclose(found[row], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_are_a_function_of_seed_and_step(num_workers):
    tasks = dataclasses.replace(TASKS, task_batch_size=8, num_tasks=5)

    def batches(start, count, **settings):
        data = tasks.load().train
        made = TrainingBatches([Stream(tasks, 3, start)], data, **settings)
        found = [next(made) for _ in range(count)]
        made.close()
        return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}

    whole, later = batches(0, 6), batches(4, 1, steps_per_batch=2, num_workers=num_workers)
    assert whole["sequence_seeds"].dtype == np.uint32 and whole["sequence_seeds"].shape == (6, 1, 8)
    for name in ("task_ids", "sequence_seeds"):
        np.testing.assert_array_equal(whole[name][4:], later[name])
    assert whole["task_ids"].max() < 5 and len(np.unique(whole["sequence_seeds"])) == 48
    seeds = SeedSampler()(np.random.default_rng(0), 100_000, 6)["sequence_seeds"]
    assert scipy.stats.kstest(seeds / 2**32, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": -1.0}, "NoisyLinearRegression.noise"),
        ({"predicts": "classes"}, "NoisyLinearRegression.predicts must be one of numbers, normals"),
        ({"num_tasks": 0}, "NoisyLinearRegression.num_tasks"),
        ({"sequence_length": 0}, "NoisyLinearRegression.sequence_length must be a positive integer"),
        ({"task_batch_size": 10, "sequences_per_task": 4}, "NoisyLinearRegression.task_batch_size = 10 is not a mult"),
    ],
)
def test_values_out_of_range_are_refused_by_the_name_that_gin_knows(settings, message):
    with pytest.raises(UsageError, match=message):
        NoisyLinearRegression(**settings)
