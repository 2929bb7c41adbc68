"""Several hosts train one run, or a stack, as one host does."""

import os
import pathlib
import shutil
import signal

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest

MODEL = ["Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "adam.learning_rate = 1e-2"]
STEPS = ["Training.steps = 30", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 6"]
DIAGNOSTICS = ["Training.diagnostics = @Diagnostics()", "Diagnostics.period = 10", "Diagnostics.num_sequences = 8"]


@pytest.fixture(scope="module")
def bindings(small_bindings):
    return [*small_bindings[:-1], *MODEL, *STEPS, *DIAGNOSTICS]


@pytest.fixture(scope="module")
def expected(bindings, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("expected") / "run")
    with StopRequest() as stop:
        execute([RunSpec.from_config(parse([], bindings), folder)], stop)
    return folder


@pytest.fixture
def train(bindings, start_job, tmp_path):
    def start(folder, *more, **job):
        gin_file = tmp_path / "run.gin"
        gin_file.write_text("\n".join([*bindings, *more]))
        return start_job(["-m", "gpicl_flax", "train", "--gin_file", gin_file, "--workdir", folder.path], **job)

    return start


def assert_same_run(found, expected):
    rows, expected_rows = json_lines.read(found.metrics), json_lines.read(expected.metrics)
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for name in ("loss", "loss_ema", "accuracy_last", "grad_norm", "param_norm"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in expected_rows], rtol=2e-4, atol=2e-5, err_msg=name
        )
    losses, expected_losses = (
        [row["diagnostics"]["unseen_loss"] for row in each if "diagnostics" in row] for each in (rows, expected_rows)
    )
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for curve, other in zip(found.latest_evaluation()["curves"], expected.latest_evaluation()["curves"], strict=True):
        np.testing.assert_allclose(curve["loss"], other["loss"], rtol=1e-3)
    assert found.ended == expected.ended == "DONE"


@pytest.mark.launch
def test_two_processes_train_the_run_of_one_and_speak_with_one_voice(train, expected, tmp_path):
    folder = RunFolder(tmp_path / "run")
    codes, outputs = train(folder, "MeshShape.fsdp = 2").wait()
    assert codes == [0, 0], outputs
    assert "step 30/30" in outputs[0] and "meta-test accuracy" in outputs[0]
    assert outputs[1] == ""
    assert folder.read_run_info()["mesh"] == {"member": 1, "data": 2, "fsdp": 2, "model": 1}
    assert_same_run(folder, expected)


@pytest.mark.launch
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_of_four_processes_of_which_one_is_told_to_stop_goes_on_on_fewer(
    train, expected, tmp_path, wait_for, processes
):
    folder, longer = RunFolder(tmp_path / "run"), "Training.steps = 2000"
    job = train(folder, longer, num_processes=4, devices=1)
    wait_for(lambda: any(path.name.isdigit() for path in folder.checkpoints.glob("*")))
    job.processes[2].send_signal(signal.SIGTERM)
    codes, outputs = job.wait()
    assert codes == [42] * 4, outputs
    assert "saved; start it again" in outputs[0] and not any(outputs[1:])
    stopped_at = max(int(path.name) for path in folder.checkpoints.iterdir() if path.name.isdigit())
    assert f"stopped at step {stopped_at:,} of 2,000" in outputs[0]
    assert [row["step"] for row in json_lines.read(folder.metrics)] == list(range(2, stopped_at + 1, 2))

    undisturbed = RunFolder(tmp_path / "undisturbed")
    end = f"Training.steps = {stopped_at + 10}"
    folder.config.write_text(folder.config.read_text().replace(longer, end))
    codes, outputs = train(folder, end, num_processes=processes, devices=2).wait()
    assert codes == [0] * processes, outputs
    codes, outputs = train(undisturbed, end, num_processes=1).wait()
    assert codes == [0], outputs
    assert_same_run(folder, undisturbed)


@pytest.mark.launch
@pytest.mark.parametrize("goes_on", [False, True])
def test_two_processes_stop_early_together(train, expected, tmp_path, goes_on):
    """From the start, and from the checkpoint of step 24, before which the log has decided it."""
    budget = 24 if goes_on else 4
    folder = RunFolder(tmp_path / "run")
    early_stop = ["Training.early_stop = @EarlyStop()", f"EarlyStop.plateau_steps = {budget}"]
    if goes_on:
        shutil.copytree(expected.path, folder.path)
        folder.config.write_text("\n".join([folder.config.read_text(), *early_stop]))
        for path in (folder.path / "DONE", folder.checkpoints / "30", folder.evaluations):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    codes, outputs = train(folder, *early_stop).wait()
    assert codes == [0, 0], outputs
    assert f"Stopped early at step {budget + 2} of 30 (plateau)" in outputs[0]
    last = json_lines.read(folder.metrics)[-1]
    assert last["step"] == budget + 2 and last["stopped_early"] == "plateau"
    assert folder.latest_evaluation()["step"] == budget + 2 and folder.ended == "DONE"


@pytest.mark.launch
def test_members_of_a_stack_lie_on_the_devices_of_two_processes(start_job, bindings, expected, tmp_path):
    gin_file = tmp_path / "sweep.gin"
    gin_file.write_text("\n".join([*bindings, "sweep.grids = [{'Run.seed': [0, 1, 2, 3]}]"]))
    command = ["-m", "gpicl_flax", "sweep", "--gin_file", gin_file, "--workdir", tmp_path / "runs", "--stack", "4"]
    codes, outputs = start_job(command).wait()
    assert codes == [0, 0], outputs
    folders = [RunFolder(path) for path in sorted((tmp_path / "runs").iterdir())]
    assert [folder.read_run_info()["mesh"]["member"] for folder in folders] == [4] * 4
    assert_same_run(next(folder for folder in folders if folder.read_run_info()["seed"] == 0), expected)


@pytest.mark.launch
def test_a_damaged_checkpoint_is_passed_over_by_all(train, expected, tmp_path):
    folder = RunFolder(shutil.copytree(expected.path, tmp_path / "run"))
    (folder.path / "DONE").unlink()
    newest = folder.checkpoints / "30"
    for file in [path for path in pathlib.Path(newest).rglob("d/*") if path.is_file()]:
        os.truncate(file, file.stat().st_size // 2)
    codes, outputs = train(folder).wait()
    assert codes == [0, 0], outputs
    assert "checkpoint 30 in" in outputs[0] and "going on from checkpoint 24" in outputs[0]
    assert (folder.checkpoints / "damaged_30").is_dir()
    assert_same_run(folder, expected)


@pytest.mark.launch
def test_what_is_wrong_on_one_host_ends_all(train, start_job, bindings, tmp_path):
    folder = RunFolder(tmp_path / "run")
    one = train(folder, num_processes=2)
    codes, outputs = one.wait()
    assert codes == [0, 0], outputs
    # The same command with another seed on the second host.
    script = (
        "import sys, os; from gpicl_flax.cli.main import main;"
        f"sys.exit(main(['train', '--gin_file', {str(tmp_path / 'run.gin')!r}, '--workdir', {str(tmp_path / 'b')!r},"
        "'--gin_bindings', f\"Run.seed = {os.environ['JAX_PROCESS_ID']}\"]))"
    )
    codes, outputs = start_job(["-c", script]).wait()
    assert codes == [2, 2], outputs
    assert all("process 1" in output and "another configuration than" in output for output in outputs)


@pytest.mark.launch
def test_who_does_not_come_is_named(start_job):
    script = (
        "from gpicl_flax.runtime import distributed; distributed.connect()\n"
        "if distributed.is_primary():\n"
        "    try: distributed.barrier('the roll call', 2)\n"
        "    except Exception as error: print(error, flush=True)\n"
        "else:\n"  # stays until the first process has ended
        "    try: distributed._client().blocking_key_value_get('never set', 600_000)\n"
        "    except Exception: pass\n"
        "import os; os._exit(0)"
    )
    codes, outputs = start_job(["-c", script]).wait()
    assert "waited 2 s for the roll call: process 1 (" in outputs[0] and "did not come" in outputs[0]


@pytest.mark.launch
def test_a_process_that_stays_alone_says_so(start_job):
    alone = {"JAX_NUM_PROCESSES": "2", "GPICL_CONNECT_SECONDS": "2"}
    command = ["-m", "gpicl_flax", "train", "--gin_file", "gin/quickstart.gin", "--workdir", "nowhere"]
    codes, outputs = start_job(command, num_processes=1, more=alone).wait()
    assert codes == [1]
    assert "2 processes did not meet at localhost" in outputs[0] and outputs[0].count("\n") <= 1


@pytest.mark.launch
@pytest.mark.parametrize("connects", ["", "distributed.connect()\n"])
def test_processes_of_a_script_that_joined_them_itself_are_several(start_job, connects):
    script = (
        "import os, jax; from gpicl_flax.runtime import distributed\n"
        "jax.distributed.initialize(os.environ['JAX_COORDINATOR_ADDRESS'], int(os.environ['JAX_NUM_PROCESSES']),\n"
        "                           int(os.environ['JAX_PROCESS_ID']))\n"
        f"{connects}"
        "print(distributed.is_primary(), distributed.broadcast(os.environ['JAX_PROCESS_ID'], 'a text'),\n"
        "      distributed.max_over_processes(jax.process_index(), 'a number'))"
    )
    codes, outputs = start_job(["-c", script]).wait()
    assert codes == [0, 0], outputs
    assert [output.splitlines()[-1] for output in outputs] == ["True 0 1", "False 0 1"]
