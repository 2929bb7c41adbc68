"""A family of a test's own, whose sequences hide targets and count only some positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation.meta_test import MetaTest, meta_test
from gpicl_flax.models import LSTM, SequenceModel
from gpicl_flax.tasks.families import FIRST_UNSEEN_ID, Recall, Sequences, TaskFamily
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.tasks.targets import Classes
from gpicl_flax.training import partitioning
from gpicl_flax.training.probes.diagnostics import make_diagnose
from gpicl_flax.training.state import init_states
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches

C, PAIRS = 4, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs(TaskFamily):
    """Three inputs with their classes, which a task determines, then the same inputs: only then do targets count."""

    sequence_length: int = 2 * PAIRS
    task_batch_size: int = 8

    num_features = 5
    targets = Classes(C)

    def draw_task(self, key):
        return jax.random.normal(key, (self.num_features, C))

    def draw_sequence(self, task, key):
        inputs = jnp.tile(jax.random.normal(key, (PAIRS, self.num_features)), (2, 1))
        asked = jnp.arange(2 * PAIRS) >= PAIRS
        return Sequences(inputs, jnp.argmax(inputs @ task, axis=-1), shown=~asked, counted=asked)


class Probe(SequenceModel):
    """Says the class that it is shown at a position, which a model must not do; and class 0 where it is hidden."""

    def __call__(self, inputs, labels):
        return 20.0 * jax.nn.one_hot(jnp.maximum(labels, 0), self.num_classes)


@pytest.fixture
def task_batches():
    mesh = partitioning.MeshShape(data=1).build()
    with jax.set_mesh(mesh):
        yield TaskBatches(Pairs(), None, mesh)


def drawn(task_batches, ids, seeds):
    batch = {"task_ids": np.asarray(ids, np.uint32), "sequence_seeds": np.asarray(seeds, np.uint32)}
    return jax.device_get(task_batches.make_sequences(np.uint32(0), batch, (), ()))


def test_a_meta_test_counts_what_counts_and_shows_what_is_shown(task_batches):
    data = task_batches.tasks.load()
    assert data.name == "pairs" and data.fingerprint
    curves = meta_test(Probe(num_classes=C), {}, task_batches, [data], MetaTest(num_sequences=40, batch_size=16), 0)
    both = task_batches.tasks.seen_task_ids(40), task_batches.tasks.unseen_task_ids(40)
    for curve, ids in zip(curves, both, strict=True):
        seeds = data.test.sampler(np.random.default_rng(0), 40, 2 * PAIRS)["sequence_seeds"]
        targets = drawn(task_batches, ids, seeds).targets
        assert curve["positions"] == [3, 4, 5]
        np.testing.assert_allclose(curve["accuracy"], (targets[:, PAIRS:] == 0).mean(axis=0))
        assert len(curve["loss"]) == 3


def test_a_step_trains_on_what_counts(task_batches):
    tasks, mesh, model, optimizer = (
        task_batches.tasks,
        task_batches.mesh,
        LSTM(num_classes=C, hidden_size=4),
        optax.sgd(0.1),
    )
    states = init_states(model, [optimizer], tasks, seeds=[0], mesh=mesh)
    params = jax.tree.map(lambda x: np.array(x[0]), states.params)
    data = task_batches.put_on_mesh(tasks.load(), tasks.load().train)
    assert data.on_device and data.data == ()
    batch = next(TrainingBatches([Stream(tasks, 0)], data.split))
    on_mesh = partitioning.shard_stacked_batches(mesh, batch)
    run_inputs = PerRunInputs(np.zeros(1, np.uint32), ())
    _, metrics, _ = make_train_steps(model, optimizer, task_batches)(states, run_inputs, data.data, on_mesh)

    sequences = drawn(task_batches, batch["task_ids"][0, 0], batch["sequence_seeds"][0, 0])
    hidden = np.where(sequences.shown, sequences.targets, -1)
    logits = np.asarray(model.apply({"params": params}, sequences.inputs, hidden), np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, sequences.targets[..., None], -1)[..., 0]
    correct = logits.argmax(-1) == sequences.targets
    for name, expected in {
        "loss": losses[:, PAIRS:].mean(),
        "loss_last": losses[:, -1].mean(),
        "accuracy": correct[:, PAIRS:].mean(),
        "accuracy_first": correct[:, PAIRS].mean(),
        "accuracy_last": correct[:, -1].mean(),
    }.items():
        np.testing.assert_allclose(metrics[name][0, 0], expected, rtol=1e-4, err_msg=name)


def test_diagnostics_count_what_counts(task_batches):
    model, tasks = LSTM(num_classes=C, hidden_size=4), task_batches.tasks
    states = init_states(model, [optax.sgd(0.1)], tasks, seeds=[0], mesh=task_batches.mesh)
    data = task_batches.put_on_mesh(tasks.load(), tasks.load().train)
    found = make_diagnose(model, task_batches, data, [0], 8)(states.params)
    seeds = data.split.sampler(np.random.default_rng(0), 8, 2 * PAIRS)["sequence_seeds"]
    sequences = drawn(task_batches, tasks.unseen_task_ids(8), seeds)
    params = jax.tree.map(lambda x: x[0], states.params)
    hidden = np.where(sequences.shown, sequences.targets, -1)
    measured = tasks.targets.measure(model.apply({"params": params}, sequences.inputs, hidden), sequences.targets)
    np.testing.assert_allclose(found["unseen_loss"][0], np.asarray(measured["loss"])[:, PAIRS:].mean(), rtol=1e-4)
    np.testing.assert_allclose(found["unseen_accuracy_last"][0], np.asarray(measured["accuracy"])[:, -1].mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": jnp.zeros(6)}, r"targets \[6\] of type int32, not .* of type float32"),
        ({"inputs": jnp.zeros((6, 4))}, r"not \[6, 4\]"),
        ({"targets": jnp.zeros(5, int)}, r"not \[6, 5\] and \[5\]"),
        ({"counted": jnp.zeros(6)}, "`counted`"),
    ],
)
def test_a_family_that_draws_something_else_is_told_what_is_wrong(change, message):
    class Wrong(Pairs):
        def draw_sequence(self, task, key):
            return super().draw_sequence(task, key)._replace(**change)

    batch = {"task_ids": np.zeros(2, np.uint32), "sequence_seeds": np.zeros(2, np.uint32)}
    with pytest.raises(UsageError, match=f"Wrong.draw_sequence must return .*{message}"):
        Wrong().make_sequences(None, np.uint32(0), batch, (), (), max_bytes=0, num_shards=1)


def test_unseen_tasks_of_validation_are_neither_trained_on_nor_tested_on():
    tested, validated = (Recall(validation_share=share).unseen_task_ids(1000) for share in (None, 0.5))
    assert len({*tested.tolist(), *validated.tolist()}) == 2000
    assert min(tested.min(), validated.min()) >= FIRST_UNSEEN_ID
    assert "validation_share" not in Recall().run_info()
    assert Recall(validation_share=0.5).run_info()["validation_share"] == 0.5
    assert Recall(validation_share=0.5).program_settings == Recall().program_settings
    for share in (0.0, 1.0):
        with pytest.raises(UsageError, match="Recall.validation_share must be between 0 and 1"):
            Recall(validation_share=share)
