import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM, DeltaNet, Transformer
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.augmentation import Augmentation
from gpicl_flax.tasks.datasets.sampler import draw_example_indices
from gpicl_flax.tasks.families.family import FIRST_UNSEEN_ID
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.probes.attention_stats import attention_mass, matching_score
from gpicl_flax.training.probes.diagnostics import Diagnostics, _compare, make_diagnose
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import init_states
from gpicl_flax.training.task_batches import TaskBatches

# Trained with a bias on few tasks; diagnosed on unseen ones that permute all labels.
TASKS = ProjectedImages(input_shape=(9,), task_batch_size=16, sequence_length=6, num_tasks=5, permute_labels_prob=0.1)
FORM = TASKS.projection_spec((9,))
MODELS = {
    "transformer": Transformer(num_layers=2, num_heads=2, key_size=8, model_size=16),
    "delta_net": DeltaNet(num_layers=1, num_heads=3, key_size=8, model_size=16, form="recurrent"),
    "lstm": LSTM(hidden_size=16),
}


def diagnose(model, dataset, *, seeds=(5,), data=1, gather=False, num_sequences=8, accumulation=1):
    """The diagnostics [S, ...] of fresh parameters, and these."""
    mesh = MeshShape(data=data).build(len(seeds))
    with jax.set_mesh(mesh):
        params = init_states(model, [optax.sgd(0.1)] * len(seeds), TASKS, seeds=seeds, mesh=mesh).params
        task_batches = TaskBatches(TASKS, FORM, mesh, "host" if gather else "device", len(seeds))
        train = task_batches.put_on_mesh(dataset, dataset.train)
        count = Diagnostics(num_sequences=num_sequences).sequences_at_once(TASKS.task_batch_size, accumulation)
        call = make_diagnose(model, task_batches, train, seeds, count)
        return jax.device_get((call(params), params))


def unseen_sequences(dataset, seed, count):
    """Inputs and labels of the first unseen tasks, made from training examples."""
    indices = draw_example_indices(np.random.default_rng(seed), count, 6, len(dataset.train))
    mesh = MeshShape(data=1).build()
    data = TaskBatches(TASKS, FORM, mesh).put_on_mesh(dataset, dataset.train).data
    ids = np.uint32(FIRST_UNSEEN_ID) + np.arange(count, dtype=np.uint32)
    examples = data.examples({"example_indices": indices})
    return Augmentation(FORM, num_classes=10).make_sequences(
        keys.task_key(seed), ids, examples, permute_labels_prob=1.0
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param("transformer", marks=pytest.mark.slow), "lstm", pytest.param("delta_net", marks=pytest.mark.slow)],
)
def test_loss_gradients_and_comparisons_are_those_on_unseen_tasks(name, toy_dataset):
    model = MODELS[name]
    found, params = diagnose(model, toy_dataset)
    found, params = jax.tree.map(lambda x: x[0], (found, params))
    inputs, labels = unseen_sequences(toy_dataset, 5, 8)

    def loss(params):
        logits, kept = model.apply(
            {"params": params}, inputs, labels, capture_intermediates=lambda module, _: module.name in ("query", "key")
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, kept.get("intermediates", {}))

    (value, (logits, kept)), gradient = jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
    assert found["unseen_loss"] == pytest.approx(value, rel=1e-4)
    assert found["unseen_accuracy_last"] == (logits[:, -1].argmax(axis=-1) == labels[:, -1]).mean()

    def norm(tree):
        return np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(tree)))

    assert np.linalg.norm(list(found["grad_norms"].values())) == pytest.approx(norm(gradient), rel=1e-3)
    if name == "lstm":
        assert found["grad_norms"]["gates_recurrent"] == pytest.approx(norm(gradient["gates_recurrent"]), rel=1e-3)
        assert found.keys() == {"unseen_loss", "unseen_accuracy_last", "grad_norms"}
        return
    assert found["grad_norms"]["block_0/query"] == pytest.approx(norm(gradient["block_0"]["query"]), rel=1e-3)
    blocks = [
        {part: kept[f"block_{layer}"][part]["__call__"][0] for part in ("query", "key")}
        for layer in range(model.num_layers)
    ]
    if name == "delta_net":  # which compares them at length 1
        blocks = jax.tree.map(lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), blocks)
    scores = [matching_score(block["query"], block["key"], inputs) for block in blocks]
    np.testing.assert_allclose(found["matching_score"], scores, atol=1e-4)
    assert ("same_class_attention" in found) == (name == "transformer")
    if name == "transformer":
        masses = [attention_mass(block["query"], block["key"], labels) for block in blocks]
        np.testing.assert_allclose(found["same_class_attention"], [m.same_class for m in masses], atol=1e-4)
        np.testing.assert_allclose(found["previous_token_attention"], [m.previous_token for m in masses], atol=1e-4)
        assert found["same_class_uniform"] == pytest.approx(float(masses[0].same_class_uniform))


@pytest.mark.slow
def test_members_devices_and_the_place_of_the_examples_change_nothing(toy_dataset):
    model = MODELS["lstm"]
    alone = [jax.tree.map(lambda x: x[0], diagnose(model, toy_dataset, seeds=(seed,))[0]) for seed in (5, 6)]
    for settings in ({"seeds": (5, 6)}, {"seeds": (5, 6), "data": 4, "gather": True}):
        together, _ = diagnose(model, toy_dataset, **settings)
        for index, expected in enumerate(alone):
            own = jax.tree.map(lambda x, index=index: x[index], together)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), own, expected)


def test_layers_are_in_the_order_of_their_numbers():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 5, 4)).astype(np.float32)
    previous = np.pad(inputs, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    noise = rng.normal(size=(12, 2, 5, 1, 4)).astype(np.float32)
    shown = {
        f"block_{layer}": {
            "memory": {"query": inputs[:, :, None], "key": previous[:, :, None] + 0.1 * layer * noise[layer]}
        }
        for layer in (10, 0, 2, 11, 1)
    }
    scores = np.ravel(_compare(shown, inputs, np.zeros((2, 5), np.int32))["matching_score"])
    expected = [matching_score(*shown[f"block_{layer}"]["memory"].values(), inputs)[0] for layer in (0, 1, 2, 10, 11)]
    np.testing.assert_allclose(scores, expected)
    assert len(np.unique(expected)) == 5


@pytest.mark.parametrize("settings", [{"data": 8, "num_sequences": 3}, {"num_sequences": 100, "accumulation": 2}])
def test_sequences_are_what_the_mesh_divides_and_a_step_has_in_memory(settings, toy_dataset):
    found, _ = diagnose(MODELS["lstm"], toy_dataset, **settings)
    expected, _ = diagnose(MODELS["lstm"], toy_dataset, num_sequences=8)
    np.testing.assert_allclose(found["unseen_loss"], expected["unseen_loss"], rtol=1e-5)


def test_diagnostics_come_with_the_dispatch_that_reaches_the_period():
    settings = Training(diagnostics=Diagnostics(period=25))
    assert [step for step in range(10, 101, 10) if settings.is_due("diagnostics", step)] == [30, 50, 80, 100]
    settings = dataclasses.replace(settings, steps_per_dispatch=50)
    assert [step for step in range(50, 201, 50) if settings.is_due("diagnostics", step)] == [50, 100, 150, 200]
    assert not settings.is_due("telemetry", 50) and not settings.is_due("diagnostics", None)
    with pytest.raises(UsageError, match="period must be a positive integer"):
        Diagnostics(period=0)


def test_training_and_initialisation_do_not_keep_what_is_compared(toy_dataset):
    model = MODELS["delta_net"]
    inputs, labels = np.zeros((1, 6, 9), np.float32), np.zeros((1, 6), np.int32)
    variables = nn.unbox(jax.jit(model.init)(jax.random.key(0), inputs, labels))
    assert variables.keys() == {"params"}
    assert not isinstance(jax.jit(model.apply)(variables, inputs, labels), tuple)
