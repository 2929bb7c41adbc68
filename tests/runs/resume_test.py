"""A run that was stopped, killed or damaged goes on as if nothing had been."""

import json
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import GpiclError, Preempted
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder


@pytest.mark.parametrize(
    "stops", [*(pytest.param(stops, marks=pytest.mark.slow) for stops in ([2], [6, 14])), [4, 4, 24]]
)
def test_a_preempted_and_resumed_run_equals_an_undisturbed_one(
    start, contents, sigterm_at, config, undisturbed, tmp_path, stops
):
    folder = RunFolder(tmp_path / "interrupted")
    for stop in stops:
        with pytest.raises(Preempted, match="saved"):
            start(config, folder, sigterm_at(stop))
        assert folder.ended is None
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_a_transformer_with_everything_and_two_devices_resumes_bit_for_bit(
    start, contents, sigterm_at, small_bindings, tmp_path
):
    """A schedule, accumulation, a curriculum, diagnostics, and meta-tests at checkpoints."""
    config = parse(["gin/quickstart.gin"], [
        *small_bindings, "STEPS = 12", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4",
        "warmup_cosine_decay_schedule.warmup_steps = 4", "Transformer.model_size = 16", "Transformer.key_size = 8",
        "Transformer.num_layers = 1",
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


def test_a_stop_during_the_last_steps_is_obeyed_before_the_meta_test(
    start, contents, sigterm_at, config, undisturbed, tmp_path
):
    folder = RunFolder(tmp_path / "late")
    with pytest.raises(Preempted, match="meta-test"):
        start(config, folder, sigterm_at(30))
    assert folder.ended is None and not folder.evaluations.exists()
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


def test_metrics_beyond_the_last_checkpoint_are_made_again(start, contents, config, undisturbed, tmp_path):
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


@pytest.mark.launch
def test_a_run_killed_twice_equals_an_undisturbed_one(start, contents, small_bindings, tmp_path):
    """Real processes and SIGKILL, at moments that differ from test to test."""
    bindings = [
        *small_bindings,
        "Run.model = @LSTM()",
        "Run.optimizer = @adam()",
        "adam.learning_rate = 1e-2",
        "TaskDistribution.task_batch_size = 64",
        "LSTM.hidden_size = 128",
        "TaskDistribution.sequence_length = 20",
        "Training.steps = 80",
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
        time.sleep(rng.uniform(0, 0.3))  # waits for nothing: the kill comes at any moment
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


@pytest.mark.slow
def test_a_run_saved_on_eight_devices_goes_on_on_two(start, sigterm_at, config, undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "moved")

    with pytest.raises(Preempted):
        start(config.override({"MeshShape.data": 8}), folder, sigterm_at(12))
    folder.config.write_text(config.override({"MeshShape.data": 2}).text)
    start(config.override({"MeshShape.data": 2}), folder)
    moved, expected = json_lines.read(folder.metrics), json_lines.read(undisturbed.metrics)
    assert [row["step"] for row in moved] == [row["step"] for row in expected]
    np.testing.assert_allclose([row["loss"] for row in moved], [row["loss"] for row in expected], rtol=1e-4)


@pytest.mark.parametrize("present", [[".config.gin.tmp"], ["config.gin"], ["config.gin", "operative_config.gin"]])
def test_a_run_that_was_killed_while_it_made_its_folder_starts_again(
    start, contents, config, undisturbed, tmp_path, present
):
    folder = RunFolder(tmp_path / "early")
    folder.path.mkdir()
    for name in present:
        (folder.path / name).write_text(config.text if name == "config.gin" else "")
    start(config, folder)
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    start, contents, config, undisturbed, caplog
):
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


def test_checkpoints_are_saved_by_time_as_well(start, config, undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "by_time")
    seconds = config.override({"Training.checkpoint_seconds": 1e-9, "Training.keep_checkpoints": 20})
    start(seconds, folder)
    assert sorted(int(path.name) for path in folder.checkpoints.iterdir()) == list(range(2, 31, 2))
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_checkpoints_carry_state_position_and_configuration(config, undisturbed):
    step_folder = undisturbed.checkpoints / "30"
    meta = json.loads((step_folder / "meta" / "metadata").read_text())
    fingerprint = undisturbed.read_run_info()["base_dataset"]["fingerprint"]
    log = meta.pop("log")
    assert meta.pop("step_flops") == undisturbed.read_run_info()["step_flops"] > 0
    assert meta == {"loader": {"next_step": 30}, "config": config.text, "data": fingerprint}
    assert log["rows"] == len(undisturbed.metrics.read_text().splitlines()) == 15 and log["gaps"] == []
    assert jax.device_count() == 8  # the suite's own set-up: resuming across devices was tested
