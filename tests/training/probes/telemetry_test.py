"""Telemetry against numpy on an independent loop, on any mesh, in a stack, and in a run that goes on."""

import copy
import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpicl_flax.analysis.data import one_run
from gpicl_flax.config import parse
from gpicl_flax.errors import Preempted, UsageError
from gpicl_flax.models import LSTM, Transformer
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks import augmentation, keys
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.training import optimizers, partitioning
from gpicl_flax.training.probes import telemetry
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import init_states
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches

TASKS = ProjectedImages(
    input_shape=(9,), task_batch_size=16, sequence_length=6, num_tasks=None, permute_labels_prob=1.0
)
FORM = TASKS.projection_spec((9,))
STEPS = 4
MODELS = {
    "transformer": Transformer(num_layers=1, num_heads=2, key_size=8, model_size=16),
    "lstm": LSTM(hidden_size=16),
}
OPTIMIZERS = {  # each with what optax calls it
    "adam": (optimizers.adam(1e-2, eps_root=1e-6), optax.adam(1e-2, eps_root=1e-6)),
    "clipped_adamw": (
        optimizers.adamw(1e-2, eps_root=1e-6, weight_decay=0.1, clip_norm=0.05),
        optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(1e-2, eps_root=1e-6, weight_decay=0.1)),
    ),
    "sgd": (optimizers.sgd(0.1), optax.sgd(0.1)),
    "sign_ema": (optimizers.sign_ema(1e-3), None),
}


def batches(dataset):
    return next(TrainingBatches([Stream(TASKS, seed=0)], dataset.train, steps_per_batch=STEPS))


def measured(dataset, model, optimizer, /, *, accumulation=1, **shape):
    """The telemetry of the last of four steps, and the state after them."""
    mesh = partitioning.MeshShape(**shape).build()
    with jax.set_mesh(mesh):
        states = init_states(model, [optimizer], TASKS, seeds=[0], mesh=mesh)
        initial_params = jax.tree.map(jnp.copy, states.params)
        task_batches = TaskBatches(TASKS, FORM, mesh)
        train_steps = make_train_steps(model, optimizer, task_batches, accumulation=accumulation)
        data = task_batches.put_on_mesh(dataset, dataset.train).data
        batch = partitioning.shard_stacked_batches(mesh, batches(dataset))
        run_inputs = PerRunInputs(np.zeros(1, np.uint32), np.ones(1, np.float32), initial_params)
        states, _, found = train_steps(states, run_inputs, data, batch)
        assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(found))
        found, states = jax.tree.map(lambda x: x[0], jax.device_get((found, states)))
        return telemetry.by_tensor(found, states.params), states


def expected(dataset, model, optimizer):
    """The same in float64 from a loop of its own."""
    mesh = partitioning.MeshShape(data=1).build()
    params = jax.device_get(init_states(model, [optimizer], TASKS, seeds=[0], mesh=mesh).params)
    initial = params = jax.tree.map(lambda x: x[0], params)
    split, opt_state, changes = dataset.train, optimizer.init(params), []

    def loss(params, task_ids, examples):
        make = augmentation.Augmentation(FORM, num_classes=10).make_sequences
        inputs, labels = make(keys.task_key(0), task_ids, examples, permute_labels_prob=1.0)
        logits = model.apply({"params": params}, inputs, labels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient, update = jax.jit(jax.grad(loss)), jax.jit(optimizer.update)
    for step in range(STEPS):
        batch = jax.tree.map(lambda x, step=step: x[step, 0], batches(dataset))
        images = split.inputs[batch["example_indices"]].astype(np.float32)
        images = (images - np.float32(dataset.mean)) / np.float32(dataset.std)
        examples = augmentation.Examples(images, split.labels[batch["example_indices"]])
        grads = gradient(params, batch["task_ids"], examples)
        updates, opt_state = update(grads, opt_state, params)
        params = jax.tree.map(np.add, params, jax.device_get(updates))
        changes.append({"grad": vectors(grads), "update": vectors(updates)})
    old, new = changes[-2:]
    values = {"tensors": {path: {} for path in vectors(params)}}
    for name in ("grad", "update"):
        values |= {
            f"{name}_norm": np.linalg.norm(whole(new[name])),
            f"{name}_cosine": cosine(whole(old[name]), whole(new[name])),
        }
        for path, vector in new[name].items():
            own = {f"{name}_norm": np.linalg.norm(vector), f"{name}_cosine": cosine(old[name][path], vector)}
            values["tensors"][path] |= own
    values["initial_distance"] = np.linalg.norm(whole(vectors(params)) - whole(vectors(initial)))
    return values, opt_state


def vectors(tree):
    """Each tensor as a vector in float64, by its path."""
    leaves = jax.tree.leaves_with_path(jax.device_get(tree))
    return {"/".join(key.key for key in path): np.asarray(x, np.float64).ravel() for path, x in leaves}


def whole(parts):
    return np.concatenate(list(parts.values()))


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def assert_close(found, values, rtol=2e-3):
    """But for the directions of what is nothing but rounding, such as the gradients of key biases."""
    found, values = copy.deepcopy((found, values))
    assert found["tensors"].keys() == values["tensors"].keys()
    for path, own in values["tensors"].items():
        theirs = found["tensors"][path]
        assert theirs.keys() == own.keys()
        if own["grad_norm"] < 1e-5 * values["grad_norm"]:
            assert theirs["grad_norm"] < 1e-4 * values["grad_norm"]
            del found["tensors"][path]
            own.clear()
    values["tensors"] = {path: own for path, own in values["tensors"].items() if own}
    assert len(values["tensors"]) > 3
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-4), found, values)


@pytest.mark.parametrize(
    ("model", "optimizer", "settings"),
    [
        ("lstm", "sgd", {"data": 1}),
        pytest.param("lstm", "clipped_adamw", {"data": 1, "accumulation": 4}, marks=pytest.mark.slow),
        pytest.param(
            "transformer",
            "adam",
            {"data": 2, "fsdp": 2, "model": 2, "accumulation": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_it_is_what_numpy_says_of_an_independent_loop(model, optimizer, settings, toy_dataset):
    """Whatever parts the batch is made in, and however the state is sharded."""
    model, (ours, theirs) = MODELS[model], OPTIMIZERS[optimizer]
    found, state = measured(toy_dataset, model, ours, **settings)
    values, opt_state = expected(toy_dataset, model, theirs)
    if optimizer != "sgd":
        adam = opt_state[1][0] if optimizer == "clipped_adamw" else opt_state[0]
        values["first_moment_norm"] = np.linalg.norm(whole(vectors(adam.mu)))
        assert found["second_moment_norm"] == pytest.approx(np.linalg.norm(whole(vectors(adam.nu))), rel=2e-3)
        del found["second_moment_norm"]
    assert_close(found, values)
    assert state.step == STEPS


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("sign_ema", marks=pytest.mark.slow)])
def test_optimisers_without_the_two_moments_have_none(optimizer, toy_dataset):
    found, state = measured(toy_dataset, MODELS["lstm"], OPTIMIZERS[optimizer][0], data=1)
    names = {"grad_norm", "grad_cosine", "update_norm", "update_cosine", "initial_distance", "tensors"}
    assert found.keys() == names
    if optimizer == "sign_ema":  # every parameter moves by the learning rate
        size = sum(x.size for x in jax.tree.leaves(state.params))
        assert found["update_norm"] == pytest.approx(1e-3 * np.sqrt(size), rel=1e-3)


def test_a_cosine_with_nothing_is_not_a_number():
    zero_grad_and_update = telemetry.zero_grad_and_update({"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)})
    ones = jax.tree.map(np.ones_like, zero_grad_and_update)
    found = telemetry.measure(zero_grad_and_update, ones, (), ones.grad, zero_grad_and_update.grad)
    assert np.isnan(found["grad_cosine"]) and np.isnan(found["tensors"]["update_cosine"]).all()
    assert found["grad_norm"] == pytest.approx(np.sqrt(5)) and found["initial_distance"] == pytest.approx(np.sqrt(5))
    half = jax.tree.map(lambda x: x * (x.size == 3), ones)
    found = telemetry.by_tensor(telemetry.measure(half, ones, (), ones.grad, ones.grad), ones.grad)
    assert found["grad_cosine"] == pytest.approx(np.sqrt(3 / 5)) and found["initial_distance"] == 0
    assert found["tensors"]["a"]["grad_cosine"] == pytest.approx(1) and np.isnan(found["tensors"]["b"]["grad_cosine"])


MEMBERS = (["Run.seed = 3"], ["Run.seed = 4", "adam.learning_rate = 1e-2"])
OFF = [
    "Training.steps = 12", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4", "Run.model = @LSTM()",
    "LSTM.hidden_size = 8", "Run.optimizer = @adam()",
]  # fmt: skip
ON = [*OFF, "Training.telemetry = @Telemetry()", "Telemetry.period = 3"]


@pytest.fixture(scope="module")
def configs(small_bindings):
    return [parse([], [*small_bindings, *ON, *member]) for member in MEMBERS]


def start(config, folder, on_row=lambda row: None):
    with StopRequest() as stop:
        execute([RunSpec.from_config(config, folder, on_row)], stop)
    return folder


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return [start(config, RunFolder(folder / str(index))) for index, config in enumerate(configs)]


def rows_of(folder):
    return {row["step"]: row["telemetry"] for row in json_lines.read(folder.metrics) if "telemetry" in row}


def test_rows_come_at_the_period_and_have_the_last_step_alone(alone):
    rows = json_lines.read(alone[0].metrics)
    assert list(rows_of(alone[0])) == [4, 6, 10, 12]
    for row in rows:
        if "telemetry" in row:  # the norm of the last of two steps, against their mean
            assert row["telemetry"]["grad_norm"] == pytest.approx(row["grad_norm"], rel=0.5)
    distances = [values["initial_distance"] for values in rows_of(alone[0]).values()]
    assert distances == sorted(distances) and distances[0] > 0
    run = one_run.read(alone[0])
    assert run.telemetry.index.tolist() == [4, 6, 10, 12]
    assert run.telemetry["", "initial_distance"].tolist() == distances
    norms = run.telemetry.xs("grad_norm", axis=1, level="quantity")
    np.testing.assert_allclose(np.linalg.norm(norms.drop(columns=""), axis=1), norms[""], rtol=1e-5)
    assert "logits/kernel" in norms and set(run.metrics) == rows[0].keys() - {"step", "phase"}


@pytest.mark.slow
def test_members_of_a_stack_are_the_runs_that_they_would_be_alone(configs, alone, tmp_path):
    folders = [RunFolder(tmp_path / str(index)) for index in range(2)]
    with StopRequest() as stop:
        execute([RunSpec.from_config(config, folder) for config, folder in zip(configs, folders, strict=True)], stop)
    for found, single in zip(map(rows_of, folders), map(rows_of, alone), strict=True):
        assert found.keys() == single.keys()
        for step, values in single.items():
            assert_close(found[step], values, rtol=1e-2)


@pytest.mark.parametrize(
    "stop_at", [pytest.param(stop_at, marks=pytest.mark.slow) for stop_at in (4, 6)]
)  # at a checkpoint of the period, and between two
def test_a_run_that_goes_on_leaves_the_same_rows(stop_at, configs, alone, tmp_path):
    def on_row(row):
        if row["step"] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        start(configs[0], RunFolder(tmp_path / "run"), on_row)
    folder = start(configs[0], RunFolder(tmp_path / "run"))
    assert folder.metrics.read_bytes() == alone[0].metrics.read_bytes()


def test_it_changes_nothing_else(small_bindings, alone, tmp_path):
    """Neither the other numbers of the rows nor what a checkpoint consists of."""
    folder = start(parse([], [*small_bindings, *OFF, *MEMBERS[0]]), RunFolder(tmp_path / "run"))
    rows = [{k: v for k, v in row.items() if k != "telemetry"} for row in json_lines.read(alone[0].metrics)]
    for row, expected_row in zip(rows, json_lines.read(folder.metrics), strict=True):
        for name in ("plateau_left_at", "phase"):
            assert row.pop(name) == expected_row.pop(name)
        assert row == pytest.approx(expected_row, rel=1e-5)
    metadata = [run.checkpoints / "12" / "state" / "_METADATA" for run in (folder, alone[0])]
    assert metadata[0].read_text() == metadata[1].read_text()


def test_what_does_not_fit_is_refused(small_bindings):
    with pytest.raises(UsageError, match="period must be a positive integer"):
        telemetry.Telemetry(period=0)
    with pytest.raises(UsageError, match="steps_per_dispatch must be at least 2"):
        parse([], [*small_bindings, *ON, "Training.steps_per_dispatch = 1"]).resolve(Run)
    assert Training().telemetry is None
