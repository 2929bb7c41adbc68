"""A whole run: resumed, killed, diverged, on a folder of its own or of another."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import gin
import jax
import numpy as np
import optax
import pytest

from gpicl_flax import run as run_module
from gpicl_flax.config import Reference, parse
from gpicl_flax.errors import Diverged, GpiclError, Preempted, UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder, read_json
from gpicl_flax.run import Run, Start, evaluate, execute
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.preemption import StopRequest

STEPS = ["Training.steps = 30", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 6"]
MODEL = ["Run.model = @LSTM()", "LSTM.hidden_size = 8", "adam.learning_rate = 1e-2"]


@pytest.fixture(scope="module")
def config(small_bindings):
    return parse([], [*small_bindings, *STEPS, *MODEL, "Run.optimizer = @adam()"])


def start(config, folder, on_row=lambda row: None):
    """Executes a run as `gpicl train` does."""
    with StopRequest() as stop:
        execute(Start(config, folder, on_row), stop)


def contents(folder: RunFolder) -> dict[str, bytes]:
    """What must not depend on interruptions: metrics, evaluations, facts, configuration and marker."""
    files = [folder.metrics, folder.facts, folder.config, folder.operative_config, *folder.evaluations.iterdir()]
    return {file.name: file.read_bytes() for file in files} | {"ended": folder.ended}


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    start(config, folder)
    return folder


@pytest.fixture
def undisturbed(finished, tmp_path):
    """A copy of a finished run, to be changed at will."""
    return RunFolder(shutil.copytree(finished.path, tmp_path / "undisturbed"))


def test_a_run_leaves_a_complete_folder(undisturbed):
    rows = json_lines.read(undisturbed.metrics)
    assert [row["step"] for row in rows] == list(range(2, 31, 2))
    assert {"loss", "loss_ema", "accuracy_last", "grad_norm", "plateau"} < rows[0].keys()
    evaluation = undisturbed.latest_evaluation()
    assert evaluation["step"] == 30
    assert [(c["base_dataset"], c["tasks"]) for c in evaluation["curves"]] == [("digits", "seen"), ("digits", "unseen")]
    facts = undisturbed.read_facts()
    assert facts["model"] == "LSTM" and facts["base_dataset"]["train_examples"] == 1437
    assert undisturbed.ended == "DONE"
    with Checkpoints(undisturbed.checkpoints) as checkpoints:
        assert checkpoints.latest_step == 30


def sigterm_at(step):
    """A row callback that sends SIGTERM to this process once, at the first row from `step` on."""
    sent = []

    def on_row(row):
        if row["step"] >= step and not sent:
            sent.append(row)
            os.kill(os.getpid(), signal.SIGTERM)

    return on_row


@pytest.mark.parametrize("stops", [[2], [6, 14], [4, 4, 24]])
def test_a_preempted_and_resumed_run_equals_an_undisturbed_one(config, undisturbed, tmp_path, stops):
    folder = RunFolder(tmp_path / "interrupted")
    for stop in stops:
        with pytest.raises(Preempted, match="saved"):
            start(config, folder, sigterm_at(stop))
        assert folder.ended is None
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


def test_a_transformer_with_everything_and_two_devices_resumes_bit_for_bit(small_bindings, tmp_path):
    """A schedule, accumulation, a curriculum, diagnostics, and meta-tests at checkpoints."""
    config = parse(["gin/quickstart.gin"], [
        *small_bindings, "STEPS = 12", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4",
        "warmup_cosine_decay_schedule.warmup_steps = 4", "Transformer.model_size = 16", "Transformer.key_size = 8",
        "MeshShape.data = 2", "Training.accumulation = 2", "Diagnostics.period = 5", "MetaTest.at_checkpoints = True",
        "Training.curriculum = @Curriculum()", "Curriculum.sequence_length = @short/optax.linear_schedule()",
        "short/linear_schedule.init_value = 2", "short/linear_schedule.end_value = 6",
        "short/linear_schedule.transition_steps = 8",
    ])  # fmt: skip
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    start(config, whole)
    for stop, evaluated in ((4, 0), (6, 1)):  # at a checkpoint of the period, which is saved first, and between two
        with pytest.raises(Preempted):
            start(config, parts, sigterm_at(stop))
        assert len(list(parts.evaluations.glob("*"))) == evaluated
    start(config, parts)
    assert contents(parts) == contents(whole)
    assert [row["step"] for row in json_lines.read(whole.metrics) if "diagnostics" in row] == [6, 10]
    assert sorted(file.name for file in whole.evaluations.iterdir()) == [f"step_{n:08d}.json" for n in (4, 8, 12)]


def test_a_stop_during_the_last_steps_is_obeyed_before_the_meta_test(config, undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "late")
    with pytest.raises(Preempted, match="meta-test"):
        start(config, folder, sigterm_at(30))
    assert folder.ended is None and not folder.evaluations.exists()
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


def test_metrics_beyond_the_last_checkpoint_are_made_again(config, undisturbed, tmp_path):
    """As after a power cut: later rows are in the log, one of them cut off, and the marker is missing."""
    folder = RunFolder(tmp_path / "cut")

    def crash(row):
        if row["step"] >= 10:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        start(config, folder, crash)
    with folder.metrics.open("a") as file:
        file.write('{"step": 8, "loss": 99.0}\n{"step": 10, "lo')
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


def test_a_run_killed_twice_equals_an_undisturbed_one(small_bindings, tmp_path):
    """Real processes and SIGKILL, at moments that differ from test to test."""
    bindings = [
        *small_bindings,
        *MODEL,
        "Run.optimizer = @adam()",
        "TaskDistribution.task_batch_size = 64",
        "LSTM.hidden_size = 128",
        "TaskDistribution.sequence_length = 20",
        "Training.steps = 400",
        "Training.steps_per_dispatch = 5",
        "Training.checkpoint_period = 10",
    ]

    (tmp_path / "run.gin").write_text("\n".join(bindings))

    def start_process():
        command = ["-m", "gpicl_flax", "train", "--gin_file", tmp_path / "run.gin", "--workdir", folder]
        return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    rng, folder, kills = np.random.default_rng(), RunFolder(tmp_path / "killed"), []
    for _ in range(2):
        before = newest_checkpoint(folder)
        process = start_process()
        while process.poll() is None and newest_checkpoint(folder) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert folder.ended is None, "the run was over before it could be killed"
        kills.append(newest_checkpoint(folder))
    assert kills == sorted(set(kills))  # every start got further than the one before
    process = start_process()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    undisturbed = RunFolder(tmp_path / "undisturbed")
    start(parse([], bindings), undisturbed)
    assert contents(folder) == contents(undisturbed)


def newest_checkpoint(folder: RunFolder) -> int:
    found = folder.checkpoints.glob("*") if folder.checkpoints.exists() else []
    return max((int(path.name) for path in found if path.name.isdigit()), default=0)


def test_a_run_saved_on_eight_devices_goes_on_on_two(config, undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "moved")

    with pytest.raises(Preempted):
        start(config.override({"MeshShape.data": 8}), folder, sigterm_at(12))
    folder.config.write_text(config.override({"MeshShape.data": 2}).text)
    start(config.override({"MeshShape.data": 2}), folder)
    moved, expected = json_lines.read(folder.metrics), json_lines.read(undisturbed.metrics)
    assert [row["step"] for row in moved] == [row["step"] for row in expected]
    np.testing.assert_allclose([row["loss"] for row in moved], [row["loss"] for row in expected], rtol=1e-4)


def test_training_does_not_see_the_test_split(config, tmp_path):
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


@pytest.mark.parametrize("learning_rate", [1e30, 1e39])  # the second spoils the parameters in one step
def test_a_diverged_run_says_so_and_is_not_started_again(config, tmp_path, learning_rate):
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


def test_a_folder_with_another_configuration_is_left_alone(config, undisturbed):
    before = contents(undisturbed)
    with pytest.raises(UsageError, match="another configuration .*Run.seed is unset there, 1 here"):
        start(config.override({"Run.seed": 1}), undisturbed)
    assert contents(undisturbed) == before


def test_a_folder_with_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run folder"):
        start(config, RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("present", [[".config.gin.tmp"], ["config.gin"], ["config.gin", "operative_config.gin"]])
def test_a_run_that_was_killed_while_it_made_its_folder_starts_again(config, undisturbed, tmp_path, present):
    folder = RunFolder(tmp_path / "early")
    folder.path.mkdir()
    for name in present:
        (folder.path / name).write_text(config.text if name == "config.gin" else "")
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


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
def test_what_cannot_work_is_refused_before_anything_is_written(config, tmp_path, changes, words):
    folder = RunFolder(tmp_path / "refused")
    with pytest.raises(UsageError, match=words):
        start(config.override(changes), folder)
    assert not folder.path.exists()


def test_evaluate_repeats_the_meta_test_of_the_run(undisturbed):
    before = undisturbed.latest_evaluation()
    undisturbed.evaluation(30).unlink()
    evaluate(undisturbed)
    assert undisturbed.latest_evaluation() == before


def test_evaluate_takes_other_settings(undisturbed):
    before = contents(undisturbed)
    file = evaluate(undisturbed, ("MetaTest.num_sequences = 7", "MetaTest.batch_size = 3"))
    curves = read_json(file)["curves"]
    file.unlink()
    assert contents(undisturbed) == before  # the run's own evaluation is still there
    assert {curve["num_sequences"] for curve in curves} == {7}
    assert all(float(7 * a).is_integer() for curve in curves for a in np.round(np.array(curve["accuracy"]) * 7, 9) / 7)


def test_evaluate_leaves_a_save_in_progress_alone(undisturbed):
    pending = undisturbed.checkpoints / "36.orbax-checkpoint-tmp"
    pending.mkdir()
    evaluate(undisturbed)
    assert pending.exists()


def test_a_run_does_not_go_on_with_other_data(config, tmp_path):
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
    assert {curve["fingerprint"] for curve in curves} == {folder.read_facts()["base_dataset"]["fingerprint"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_where_the_data_lie_does_not_change_a_run(config, undisturbed, tmp_path, workers):
    on_host = {"Run.loader": Reference("@Loader()"), "Loader.placement": "host", "Loader.num_workers": workers}
    folder = RunFolder(tmp_path / "host")
    with pytest.raises(Preempted):
        start(config.override(on_host), folder, sigterm_at(8))
    start(config if workers else config.override(on_host), folder)  # it may change between starts, too
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert folder.latest_evaluation() == undisturbed.latest_evaluation()


def test_evaluate_refuses_what_is_no_run(tmp_path, config):
    with pytest.raises(UsageError, match="not a run folder"):
        evaluate(RunFolder(tmp_path))
    folder = RunFolder(tmp_path / "new")
    folder.path.mkdir()
    folder.config.write_text(config.text)
    with pytest.raises(UsageError, match="no checkpoint yet"):
        evaluate(folder)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(config, undisturbed, caplog):
    before = contents(undisturbed)
    shutil.rmtree(undisturbed.checkpoints / "30" / "state")
    (undisturbed.path / "DONE").unlink()
    rows = []
    start(config, undisturbed, rows.append)
    assert "checkpoint 30 in" in caplog.text and "going on from checkpoint 24" in caplog.text
    assert [row["step"] for row in rows] == [26, 28, 30]
    assert contents(undisturbed) == before

    for step in ("24", "30"):
        shutil.rmtree(undisturbed.checkpoints / step / "state")
    (undisturbed.path / "DONE").unlink()
    with pytest.raises(GpiclError, match="no checkpoint in .* can be read"):
        start(config, undisturbed)


def test_checkpoints_are_saved_by_time_as_well(config, undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "by_time")
    seconds = config.override({"Training.checkpoint_seconds": 1e-9, "Training.keep_checkpoints": 20})
    start(seconds, folder)
    assert sorted(int(path.name) for path in folder.checkpoints.iterdir()) == list(range(2, 31, 2))
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_checkpoints_carry_state_position_and_configuration(config, undisturbed):
    step_folder = undisturbed.checkpoints / "30"
    meta = json.loads((step_folder / "meta" / "metadata").read_text())
    fingerprint = undisturbed.read_facts()["base_dataset"]["fingerprint"]
    assert meta == {"loader": {"next_step": 30}, "config": config.text, "data": fingerprint}
    assert jax.device_count() == 8  # the suite's own set-up: resuming across devices was tested


@pytest.mark.parametrize("model", ["OnlineSGD", "LSTM"])
def test_a_run_of_no_steps_is_a_meta_test(small_bindings, tmp_path, model):
    config = parse([], [*small_bindings, "Training.steps = 0", f"Run.model = @{model}()"])
    folder = RunFolder(tmp_path / "run")
    start(config, folder)
    assert folder.ended == "DONE"
    assert json_lines.read(folder.metrics) == []
    evaluation = folder.latest_evaluation()
    assert evaluation["step"] == 0
    assert evaluate(folder, ("MetaTest.num_sequences = 20",)).exists()
    again = read_json(evaluate(folder, ("MetaTest.num_sequences = 20",)))
    assert again == evaluation
    assert np.std(evaluation["curves"][0]["loss"]) > 0


def test_what_has_no_parameters_cannot_be_trained(small_bindings, tmp_path):
    config = parse([], [*small_bindings, *STEPS, "Run.model = @OnlineSGD()"])
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


def test_programs_are_made_with_the_precision_of_the_settings(config, tmp_path, monkeypatch):
    """Its effect depends on the backend, so what is in force where a run trains and is meta-tested is what can be tested."""
    found = []

    def note(function):
        def noted(*args, **kwargs):
            found.append(jax.config.jax_default_matmul_precision)
            return function(*args, **kwargs)

        return noted

    for name in ("train", "meta_test"):
        monkeypatch.setattr(run_module, name, note(getattr(run_module, name)))
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


@pytest.fixture(scope="module")
def grown(small_bindings):
    """Digits of 8x8x1 that grow to 10x9x3, with a bounded number of tasks."""
    shape = ["TaskDistribution.input_shape = (10, 9, 3)", "TaskDistribution.num_tasks = 16"]
    steps = ["Training.steps = 4", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 2"]
    return parse([], [*small_bindings, *MODEL, "Run.optimizer = @adam()", *shape, *steps])


def test_the_span_of_the_images_gives_the_run_that_dense_projections_give(grown, tmp_path):
    folders = {form: RunFolder(tmp_path / form) for form in ("span", "dense")}
    for form, folder in folders.items():
        start(grown.override({"TaskDistribution.projection": form}), folder)
        assert folder.read_facts()["projection"] == {
            "form": form,
            "basis_shape": [8, 8, 1],
            "input_shape": [10, 9, 3],
        }
    losses = [[row["loss"] for row in json_lines.read(folder.metrics)] for folder in folders.values()]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    curves = [folder.latest_evaluation()["curves"] for folder in folders.values()]
    for span, dense in zip(*curves, strict=True):
        np.testing.assert_allclose(span["loss"], dense["loss"], rtol=1e-4)


def test_seen_tasks_are_the_same_for_images_of_another_size(grown, tmp_path):
    """The same test images, stored at the input shape instead of grown to it: the same inputs, so the same curves."""
    from gpicl_flax.tasks import input_space, sources

    folder = RunFolder(tmp_path / "run")
    start(grown, folder)
    raw = sources.read("digits")
    arrays = {}
    for name, split in (("train", raw.train), ("test", raw.test)):
        images = input_space.growth((8, 8, 1), (10, 9, 3))(
            split.inputs.reshape(len(split.inputs), -1).astype(np.float32)
        )
        arrays |= {f"{name}_images": np.round(images).astype(np.uint8).reshape(-1, 10, 9, 3)}
        arrays |= {f"{name}_labels": split.labels}
    np.savez(tmp_path / "large.npz", **arrays)
    found = read_json(evaluate(folder, (f"MetaTest.base_datasets = ['{tmp_path / 'large.npz'}']",)))["curves"]
    expected = folder.latest_evaluation()["curves"]
    assert [curve["tasks"] for curve in found] == ["seen", "unseen"]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0.02)  # grey values were rounded


def test_how_projections_were_drawn_is_not_changed_afterwards(undisturbed):
    with pytest.raises(UsageError, match="drawn in the form 'span'; that cannot be changed to 'dense'"):
        evaluate(undisturbed, ("TaskDistribution.projection = 'dense'",))
    facts = undisturbed.read_facts()
    del facts["projection"]
    undisturbed.facts.write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="made by an older version"):
        evaluate(undisturbed)


def test_an_optimiser_from_elsewhere_is_taken_as_it_is(config, tmp_path):
    """One that cannot be initialised but with the parameters' own tree."""

    @gin.configurable(module="run_test")
    def labelled():
        return optax.multi_transform({"a": optax.sgd(0.1)}, lambda params: {name: "a" for name in params})

    folder = RunFolder(tmp_path / "run")
    own = config.without("adam.learning_rate").override({"Run.optimizer": Reference("@run_test.labelled()")})
    start(own, folder)
    assert folder.ended == "DONE"


def test_a_run_of_the_gram_form_has_no_seen_tasks_and_resumes(grown, tmp_path):
    from gpicl_flax.analysis import results

    config = grown.override({"TaskDistribution.num_tasks": None})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    start(config, whole)
    assert whole.read_facts()["projection"]["form"] == "gram"
    assert [curve["tasks"] for curve in whole.latest_evaluation()["curves"]] == ["unseen"]
    assert "unseen tasks, digits" in results.summary(whole, whole.latest_evaluation())
    with pytest.raises(Preempted):
        start(config, parts, sigterm_at(2))
    start(config, parts)
    assert contents(parts) == contents(whole)
