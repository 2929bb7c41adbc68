"""A whole run: what it leaves, what is refused, and what its settings do."""

import gin
import jax
import numpy as np
import optax
import pytest

from gpicl_flax.config import Reference, parse
from gpicl_flax.errors import Diverged, Preempted, UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import evaluate as evaluate_module
from gpicl_flax.runs import execute as execute_module
from gpicl_flax.runs.evaluate import evaluate
from gpicl_flax.runs.run import Run
from gpicl_flax.training.checkpoint import Checkpoints


def test_a_run_leaves_a_complete_folder(undisturbed):
    rows = json_lines.read(undisturbed.metrics)
    assert [row["step"] for row in rows] == list(range(2, 31, 2))
    assert {"loss", "loss_ema", "accuracy_last", "grad_norm", "plateau"} < rows[0].keys()
    evaluation = undisturbed.latest_evaluation()
    assert evaluation["step"] == 30
    assert [(c["base_dataset"], c["tasks"]) for c in evaluation["curves"]] == [("digits", "seen"), ("digits", "unseen")]
    run_info = undisturbed.read_run_info()
    assert run_info["model"] == "LSTM" and run_info["base_dataset"]["train_examples"] == 1437
    assert undisturbed.ended == "DONE"
    with Checkpoints(undisturbed.checkpoints) as checkpoints:
        assert checkpoints.latest_step == 30


def test_training_does_not_see_the_test_split(start, config, tmp_path):
    """Two base datasets that differ in every test image and label train to the same metrics."""
    rng = np.random.default_rng(0)
    train = {"train_images": rng.integers(0, 256, (50, 4, 4), dtype=np.uint8), "train_labels": rng.integers(0, 10, 50)}
    logs = []
    for name in ("one", "other"):
        test = {"test_images": rng.integers(0, 256, (40, 4, 4), dtype=np.uint8), "test_labels": rng.integers(0, 10, 40)}
        np.savez(tmp_path / f"{name}.npz", **train, **test)
        path = str(tmp_path / f"{name}.npz")
        folder = RunFolder(tmp_path / name)
        start(config.override({"TaskDistribution.base_dataset": path, "MetaTest.base_datasets": [path]}), folder)
        logs.append((folder.metrics.read_text(), folder.latest_evaluation()))
    (metrics, evaluation), (other_metrics, other_evaluation) = logs
    assert metrics == other_metrics
    for curve, other in zip(evaluation["curves"], other_evaluation["curves"], strict=True):
        assert curve["loss"] != other["loss"]  # ... while the meta-test sees nothing else


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # 1e39 is no float32
@pytest.mark.parametrize("learning_rate", [1e30, 1e39])  # the second spoils the parameters in one step
def test_a_diverged_run_says_so_and_is_not_started_again(start, config, tmp_path, learning_rate):
    folder = RunFolder(tmp_path / "diverged")
    hot = config.override({"adam.learning_rate": learning_rate})
    with pytest.raises(Diverged, match="diverged at step .*grad_norm"):
        start(hot, folder)
    assert folder.ended == "DIVERGED"
    rows = json_lines.read(folder.metrics)
    assert all(np.isfinite(row["loss"]) for row in rows)
    with Checkpoints(folder.checkpoints) as checkpoints:  # nothing that is not finite was saved
        assert checkpoints.latest_step is None
    with pytest.raises(UsageError, match="diverged at step"):
        start(hot, folder)


def test_a_folder_with_another_configuration_is_left_alone(start, contents, config, undisturbed):
    before = contents(undisturbed)
    with pytest.raises(UsageError, match="another configuration .*Run.seed is unset there, 1 here"):
        start(config.override({"Run.seed": 1}), undisturbed)
    assert contents(undisturbed) == before


def test_a_folder_with_something_else_is_left_alone(start, config, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run folder"):
        start(config, RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TaskDistribution.base_dataset": "no_such_dataset"}, "unknown base dataset"),
        ({"MetaTest.base_datasets": ["digits", "none/none.npz"]}, "none.npz"),
        ({"TaskDistribution.sequence_length": 400, "TaskDistribution.input_shape": (8, 8, 1)}, "360 test examples"),
        ({"MeshShape.data": 3}, "not divisible by the mesh: 3 device"),
        ({"Training.accumulation": 3}, "not divisible .*accumulation = 3"),
        ({"MeshShape.data": 16}, "do not fit 8 device"),
        ({"LSTM.hidden_size": 7, "MeshShape.model": 8}, "does not divide over the mesh"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(start, config, tmp_path, changes, words):
    folder = RunFolder(tmp_path / "refused")
    with pytest.raises(UsageError, match=words):
        start(config.override(changes), folder)
    assert not folder.path.exists()


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(start, sigterm_at, config, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (50, 4, 4), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, 50)
    np.savez(path, **arrays)
    own = config.override({"TaskDistribution.base_dataset": str(path), "MetaTest.base_datasets": [str(path)]})
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Preempted):
        start(own, folder, sigterm_at(6))

    np.savez(path, **arrays | {"train_labels": arrays["train_labels"][::-1]})
    before = {file: file.read_bytes() for file in folder.path.iterdir() if file.is_file()}
    for call in (lambda: start(own, folder), lambda: evaluate(folder)):
        with pytest.raises(UsageError, match="was trained on other data: .*data.npz.* choose another folder") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in folder.path.iterdir() if file.is_file()} == before
    assert not folder.evaluations.exists()
    np.savez(path, **arrays)
    start(own, folder)
    assert folder.ended == "DONE"
    curves = folder.latest_evaluation()["curves"]
    assert {curve["fingerprint"] for curve in curves} == {folder.read_run_info()["base_dataset"]["fingerprint"]}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_where_the_data_lie_does_not_change_a_run(start, sigterm_at, config, undisturbed, tmp_path, workers):
    on_host = {"Run.loader": Reference("@Loader()"), "Loader.placement": "host", "Loader.num_workers": workers}
    folder = RunFolder(tmp_path / "host")
    with pytest.raises(Preempted):
        start(config.override(on_host), folder, sigterm_at(8))
    start(config if workers else config.override(on_host), folder)  # it may change between starts, too
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert folder.latest_evaluation() == undisturbed.latest_evaluation()


def test_what_has_no_parameters_cannot_be_trained(start, small_bindings, tmp_path):
    config = parse([], [*small_bindings, "Training.steps = 30", "Run.model = @OnlineSGD()"])
    with pytest.raises(UsageError, match="Training.steps = 0"):
        start(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_scopes_give_inner_and_outer_optimizers_values_of_their_own(small_bindings):
    bindings = ["Run.model = @MAML()", "MAML.inner_optimizer = @inner/sgd()", "inner/sgd.learning_rate = 0.5"]
    run, operative = parse(
        [], [*small_bindings, *bindings, "Run.optimizer = @sgd()", "sgd.learning_rate = 0.25"]
    ).resolve(Run)
    gradient = np.float32(1)
    updates = [
        optimizer.update(gradient, optimizer.init(gradient))[0]
        for optimizer in (run.optimizer, run.model.inner_optimizer)
    ]
    assert updates == [-0.25, -0.5]
    assert "inner/sgd.learning_rate = 0.5" in operative


@pytest.mark.slow
def test_programs_are_made_with_the_precision_of_the_settings(start, config, tmp_path, monkeypatch):
    """Tests the precision in force where a run trains and is meta-tested, because its effect depends on the backend."""
    found = []

    def note(function):
        def noted(*args, **kwargs):
            found.append(jax.config.jax_default_matmul_precision)
            return function(*args, **kwargs)

        return noted

    for module, name in ((execute_module, "train"), (evaluate_module, "meta_test")):
        monkeypatch.setattr(module, name, note(getattr(module, name)))
    folder = RunFolder(tmp_path / "coarse")
    start(config.override({"Run.matmul_precision": "bfloat16"}), folder)
    evaluate(folder)
    start(config, RunFolder(tmp_path / "default"))
    assert found == ["bfloat16"] * 3 + [None] * 2
    for name, words in (
        ("precise", "Run.matmul_precision: .*'float32'"),
        ("", "Run.matmul_precision: .*'float32'"),
        ("TF32_TF32_F32", "Run.matmul_precision = 'TF32_TF32_F32' does not work here"),
    ):
        folder = RunFolder(tmp_path / "wrong")
        with pytest.raises(UsageError, match=words) as caught:
            start(config.override({"Run.matmul_precision": name}), folder)
        assert "\n" not in str(caught.value) and not folder.path.exists()


@pytest.mark.slow
def test_an_optimiser_from_elsewhere_is_taken_as_it_is(start, config, tmp_path):
    """One that cannot be initialised but with the parameters' own tree."""

    @gin.configurable(module="run_test")
    def labelled():
        return optax.multi_transform({"a": optax.sgd(0.1)}, lambda params: {name: "a" for name in params})

    folder = RunFolder(tmp_path / "run")
    own = config.without("adam.learning_rate").override({"Run.optimizer": Reference("@run_test.labelled()")})
    start(own, folder)
    assert folder.ended == "DONE"
