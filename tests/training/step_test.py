import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from gpicl_flax.errors import UsageError
from gpicl_flax.models import (
    GLA,
    KDA,
    LSTM,
    MLP,
    MLSTM,
    RGLRU,
    RWKV7,
    VSML,
    DeltaNet,
    Hybrid,
    LinearAttention,
    Mamba2,
    OuterProductLSTM,
    RetNet,
    SlidingWindowTransformer,
    Transformer,
    VSMLWithoutSymmetries,
)
from gpicl_flax.records import plateau
from gpicl_flax.references import MAML
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches
from gpicl_flax.tasks.targets import sequence_losses
from gpicl_flax.training import partitioning
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.state import abstract_state, init_states, member_state, shardings_of
from gpicl_flax.training.step import PerRunInputs, make_train_steps
from gpicl_flax.training.task_batches import TaskBatches

TASKS = ProjectedImages(
    input_shape=(9,), task_batch_size=16, sequence_length=6, num_tasks=None, permute_labels_prob=1.0
)
BACKBONE = {"num_layers": 1, "num_heads": 2, "key_size": 8, "model_size": 16}
MODELS = {
    "transformer": Transformer(num_layers=1, num_heads=2, key_size=8, model_size=16),
    "lstm": LSTM(hidden_size=16),
}
FORM = TASKS.projection_spec((9,))
ADAM, SGD = adam(1e-2), optax.sgd(0.1)  # plain gradient descent does not amplify rounding
FURTHER_MODELS = {
    "outer_product_lstm": OuterProductLSTM(size=8, num_heads=2),
    "vsml": VSML(num_layers=2, layer_size=2, hidden_size=4),
    "vsml_without_symmetries": VSMLWithoutSymmetries(grid_size=2, hidden_size=8),
    "delta_net": DeltaNet(num_layers=1, num_heads=2, key_size=8, model_size=16, chunk_size=4),
    "linear_attention": LinearAttention(**BACKBONE, short_convolution=True),
    "ret_net": RetNet(**BACKBONE),
    "mamba2": Mamba2(**BACKBONE),
    "gla": GLA(**BACKBONE),
    "mlstm": MLSTM(**BACKBONE),
    "kda": KDA(**BACKBONE),
    "rwkv7": RWKV7(**BACKBONE, channel_mix=True),
    "rg_lru": RGLRU(**BACKBONE),
    "sliding_window_transformer": SlidingWindowTransformer(**BACKBONE, window=3),
    "hybrid": Hybrid(
        num_layers=2, model_size=16, pattern=[RGLRU(num_heads=2, key_size=8), SlidingWindowTransformer(num_heads=2)]
    ),
    "mlp": MLP(hidden_size=16),
    "maml": MAML(hidden_sizes=(16,)),
}


@functools.cache
def fresh_states(model, optimizer):
    """The states of a stack of one, on the host; the program that makes them is compiled once for all meshes."""
    mesh = partitioning.MeshShape(data=1).build()
    return jax.device_get(init_states(model, [optimizer], TASKS, seeds=[0], mesh=mesh))


def train(
    dataset,
    model=MODELS["transformer"],
    optimizer=ADAM,
    *,
    steps=6,
    data=1,
    model_axis=1,
    fsdp=1,
    accumulation=1,
    gather=False,
):
    """The state and the metrics [steps] of a short training."""
    fresh = fresh_states(model.clone(dtype="float32"), optimizer)  # parameters are float32 in any case
    mesh = partitioning.MeshShape(data=data, fsdp=fsdp, model=model_axis).build()
    with jax.set_mesh(mesh):
        shardings = partitioning.stacked(shardings_of(abstract_state(model, optimizer, TASKS, mesh=mesh)))
        state = jax.device_put(fresh, shardings)
        task_batches = TaskBatches(TASKS, FORM, mesh, "host" if gather else "device")
        train_steps = make_train_steps(model, optimizer, task_batches, accumulation=accumulation)
        data = task_batches.put_on_mesh(dataset, dataset.train).data
        batch = next(TrainingBatches([Stream(TASKS, seed=0)], dataset.train, gather=gather, steps_per_batch=steps))
        batch = partitioning.shard_stacked_batches(mesh, batch)
        run_inputs = PerRunInputs(np.zeros(1, np.uint32), np.full(1, TASKS.permute_labels_prob, np.float32))
        state, metrics, _ = train_steps(state, run_inputs, data, batch)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
        state = jax.tree.map(lambda x: x[0], jax.device_get(state))
        return state, {name: values[:, 0] for name, values in jax.device_get(metrics).items()}


def fresh_state(model, optimizer, seed=0, *, mesh):
    like = abstract_state(model, optimizer, TASKS, mesh=mesh)
    return member_state(init_states(model, [optimizer], TASKS, seeds=[seed], mesh=mesh), 0, like)


def with_slow(names, quick):
    """The names as parameters of a test; all but the quick ones are left to the long checks."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def on_one_device():
    """(name, dataset) -> state and metrics of six steps on one device, or of three; computed once a model."""
    results = {}

    def get(name, dataset):
        if name not in results:
            results[name] = train(dataset, (MODELS | FURTHER_MODELS)[name], steps=6 if name in MODELS else 3)
        return results[name]

    return get


# The quick ones have every axis of the mesh; data alone, and data with model, are tested below with other models.
@pytest.mark.parametrize(
    ("name", "data", "fsdp", "model_axis"),
    [
        ("transformer", 2, 2, 2),
        pytest.param("lstm", 2, 2, 2, marks=pytest.mark.slow),
        *(pytest.param("transformer", *mesh, marks=pytest.mark.slow) for mesh in ((8, 1, 1), (4, 1, 2), (1, 8, 1))),
        *(pytest.param("lstm", *mesh, marks=pytest.mark.slow) for mesh in ((8, 1, 1), (4, 1, 2), (1, 8, 1))),
    ],
)
def test_any_number_of_devices_gives_the_same_losses(toy_dataset, on_one_device, name, data, fsdp, model_axis):
    model = MODELS[name]
    state, metrics = on_one_device(name, toy_dataset)
    sharded_state, sharded_metrics = train(toy_dataset, model, data=data, fsdp=fsdp, model_axis=model_axis)
    np.testing.assert_allclose(sharded_metrics["loss"], metrics["loss"], rtol=2e-5)
    for a, b in zip(jax.tree.leaves(sharded_state.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # Adam's first steps turn rounding into signs


@pytest.mark.slow
def test_examples_that_the_host_gathers_are_the_same_training_bit_for_bit(toy_dataset, on_one_device):
    state, metrics = on_one_device("lstm", toy_dataset)
    gathered_state, gathered_metrics = train(toy_dataset, MODELS["lstm"], gather=True)
    jax.tree.map(np.testing.assert_array_equal, (gathered_state, gathered_metrics), (state, metrics))
    _, sharded = train(toy_dataset, MODELS["lstm"], data=8, gather=True)
    np.testing.assert_allclose(sharded["loss"], metrics["loss"], rtol=1e-4)
    _, accumulated = train(toy_dataset, MODELS["lstm"], data=2, accumulation=4, gather=True)
    np.testing.assert_allclose(accumulated["loss"], metrics["loss"], rtol=1e-4)


@pytest.mark.parametrize("name", with_slow(FURTHER_MODELS, quick=["mlp"]))
def test_every_model_takes_three_sharded_steps(toy_dataset, on_one_device, name):
    model = FURTHER_MODELS[name]
    _, metrics = on_one_device(name, toy_dataset)
    _, sharded = train(toy_dataset, model, steps=3, data=4, model_axis=2)
    np.testing.assert_allclose(sharded["loss"], metrics["loss"], rtol=1e-4)
    np.testing.assert_allclose(sharded["grad_norm"], metrics["grad_norm"], rtol=1e-2)
    assert metrics["grad_norm"].min() > 0


@pytest.mark.parametrize("name", with_slow([*MODELS, *FURTHER_MODELS], quick=["mlp"]))
def test_every_model_takes_three_steps_with_activations_in_bfloat16(toy_dataset, on_one_device, name):
    model = (MODELS | FURTHER_MODELS)[name]
    state, metrics = train(toy_dataset, model.clone(dtype="bfloat16"), steps=3)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    expected = on_one_device(name, toy_dataset)[1]["loss"][:3]
    np.testing.assert_allclose(metrics["loss"], expected, atol=0.03)
    assert (metrics["grad_norm"] != on_one_device(name, toy_dataset)[1]["grad_norm"][:3]).any()


def test_parameters_lie_on_the_model_axis_where_the_rules_say(toy_dataset):
    mesh = partitioning.MeshShape(data=4, model=2).build()
    params = abstract_state(MODELS["transformer"], adam(), TASKS, mesh=mesh).params
    block = params["block_0"]
    assert block["query"]["kernel"].sharding.spec == P("fsdp", "model", None)
    assert block["mlp_hidden"]["kernel"].sharding.spec == P("fsdp", "model")
    assert block["mlp_output"]["kernel"].sharding.spec == P("model", "fsdp")
    assert params["logits"]["kernel"].sharding.is_fully_replicated


def test_fully_sharded_parameters_and_moments_take_a_part_of_every_device(toy_dataset):
    mesh = partitioning.MeshShape(fsdp=8).build()
    state = abstract_state(MODELS["transformer"], adam(), TASKS, mesh=mesh)
    whole = sum(x.size for x in jax.tree.leaves(state))
    part = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state))
    assert part < 0.2 * whole


@pytest.mark.slow
@pytest.mark.parametrize("data", [1, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(toy_dataset, data):
    whole, metrics = train(toy_dataset, optimizer=SGD, data=data)
    parts, parts_metrics = train(toy_dataset, optimizer=SGD, data=data, accumulation=4)
    for name in ("loss", "accuracy", "grad_norm"):
        np.testing.assert_allclose(parts_metrics[name], metrics[name], rtol=1e-4, err_msg=name)
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_one_step_is_the_update_of_the_mean_cross_entropy(toy_dataset):
    """A golden step: loss and parameters against numpy on the sequences that the step must have seen."""
    from gpicl_flax.tasks import augmentation, keys

    mesh = partitioning.MeshShape(data=1).build()
    model = MODELS["lstm"]
    params = jax.device_get(fresh_state(model, optax.sgd(0.1), mesh=mesh).params)
    batch = jax.tree.map(lambda x: x[0, 0], next(TrainingBatches([Stream(TASKS, seed=0)], toy_dataset.train)))
    split = toy_dataset.train
    inputs, labels = augmentation.Augmentation(FORM, num_classes=10).make_sequences(
        keys.task_key(0),
        batch["task_ids"],
        augmentation.Examples(
            (split.inputs[batch["example_indices"]] - np.float32(toy_dataset.mean)) / np.float32(toy_dataset.std),
            split.labels[batch["example_indices"]],
        ),
        permute_labels_prob=1.0,
    )

    def loss(params):
        logits = np.asarray(model.apply({"params": params}, inputs, labels), np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -np.take_along_axis(log_probs, np.asarray(labels)[..., None], axis=-1).mean()

    state, metrics = train(toy_dataset, model, SGD, steps=1)
    assert metrics["loss"][0] == pytest.approx(loss(params), rel=1e-5)
    # The update of single parameters, against finite differences.
    for path in (("logits", "bias", 3), ("logits", "kernel", (2, 5)), ("gates_input", "bias", 40)):
        *keys, index = path
        old, new = params, state.params
        for key in keys:
            old, new = old[key], new[key]

        def at(value, keys=keys, index=index):
            changed = jax.tree.map(np.array, params)
            array = changed
            for key in keys:
                array = array[key]
            array[index] += value
            return loss(changed)

        slope = (at(1e-2) - at(-1e-2)) / 2e-2
        assert new[index] - old[index] == pytest.approx(-0.1 * slope, rel=0.02, abs=2e-6)
    assert state.step == 1


def test_losses_and_hits_against_numpy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5, 3)).astype(np.float32), rng.integers(3, size=(4, 5))
    losses, correct = sequence_losses(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        losses, -np.log(np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]), rtol=1e-5
    )
    np.testing.assert_array_equal(correct, logits.argmax(-1) == labels)


def test_the_average_loss_is_a_mean_first_and_exponential_later(toy_dataset, monkeypatch):
    monkeypatch.setattr(plateau, "EMA_STEPS", 4)
    _, metrics = train(toy_dataset, steps=10)
    average = 0.0
    for step, loss in enumerate(metrics["loss"].astype(np.float64)):
        average += (loss - average) / min(step + 1, 4)
        assert metrics["loss_ema"][step] == pytest.approx(average, rel=1e-5)
    assert metrics["loss_ema"][3] == pytest.approx(metrics["loss"][:4].mean(), rel=1e-5)


def test_heads_that_do_not_divide_over_the_mesh_are_refused():
    mesh = partitioning.MeshShape(data=2, model=4).build()
    with pytest.raises(UsageError, match="does not divide over the mesh"):
        abstract_state(MODELS["transformer"], adam(), TASKS, mesh=mesh)


@pytest.mark.parametrize("shape", [{"data": 9}, {"data": 4, "model": 3}, {"data": 0}, {"model": 0}, {"model": 16}])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(shape):
    with pytest.raises(UsageError, match="do not fit 8 device"):
        partitioning.MeshShape(**shape).build()


@pytest.mark.slow
def test_a_single_task_is_learned(monkeypatch):
    """The label is the brightest of nine pixels, and there is one task: the loss must fall far under chance."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (300, 9), dtype=np.uint8)
    labels = rng.integers(0, 9, 300).astype(np.int32)
    images[np.arange(300), labels] = 255
    split = Split(images, labels)
    dataset = BaseDataset("brightest", split, split, float(images.mean()), float(images.std()), (9,), 10)
    monkeypatch.setitem(globals(), "TASKS", dataclasses.replace(TASKS, num_tasks=1))
    _, metrics = train(dataset, MODELS["lstm"], ADAM, steps=150)
    assert metrics["loss"][0] > 2.0
    assert metrics["loss"][-10:].mean() < 0.5
    assert metrics["accuracy_last"][-10:].mean() > 0.85


def test_the_seed_decides_the_initial_parameters():
    mesh = partitioning.MeshShape(data=1).build()
    kernels = [
        np.asarray(fresh_state(MODELS["lstm"], adam(), seed, mesh=mesh).params["logits"]["kernel"])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()


def test_an_abstract_state_has_the_shapes_and_shardings_of_a_real_one():
    mesh = partitioning.MeshShape(data=2, model=2).build()
    real = fresh_state(MODELS["transformer"], adam(), mesh=mesh)
    abstract = abstract_state(MODELS["transformer"], adam(), TASKS, mesh=mesh)
    describe = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype, x.sharding))
    assert describe(real) == describe(abstract)
