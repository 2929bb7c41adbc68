"""What the tests of whole runs share: small configurations, a finished run, and the means to start and stop one."""

import os
import shutil
import signal

import pytest

from gpicl_flax.config import parse
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.records.stack_lease import LeaseUnavailable
from gpicl_flax.runs.check import check_folder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest

STEPS = ["Training.steps = 30", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 6"]
MODEL = ["Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()"]


@pytest.fixture(scope="session")
def config(small_bindings):
    return parse([], [*small_bindings, *STEPS, *MODEL, "adam.learning_rate = 1e-2"])


@pytest.fixture(scope="session")
def grown(small_bindings):
    """Digits of 8x8x1 that grow to 10x9x3, with a bounded number of tasks."""
    shape = ["TaskDistribution.input_shape = (10, 9, 3)", "TaskDistribution.num_tasks = 16"]
    steps = ["Training.steps = 4", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 2"]
    return parse([], [*small_bindings, *MODEL, *shape, *steps])


@pytest.fixture(scope="session")
def start():
    """Executes a run as `gpicl train` does."""

    def start(config, folder, on_row=lambda row: None):
        with StopRequest() as stop:
            try:
                (diverged,) = execute([RunSpec.from_config(config, folder, on_row)], stop, wait=True)
            except LeaseUnavailable:  # it has ended
                check_folder(config, folder)
                return
        if diverged:
            raise diverged

    return start


@pytest.fixture(scope="session")
def sigterm_at():
    """Step -> a row callback that sends SIGTERM to this process once, at the first row from that step on."""

    def sigterm_at(step):
        sent = []

        def on_row(row):
            if row["step"] >= step and not sent:
                sent.append(row)
                os.kill(os.getpid(), signal.SIGTERM)

        return on_row

    return sigterm_at


@pytest.fixture(scope="session")
def contents():
    """What must not depend on interruptions: metrics, evaluations, facts, configuration and marker."""

    def contents(folder: RunFolder) -> dict[str, bytes]:
        files = [folder.metrics, folder.run_info, folder.config, folder.operative_config, *folder.evaluations.iterdir()]
        return {file.name: file.read_bytes() for file in files} | {"ended": folder.ended}

    return contents


@pytest.fixture(scope="session")
def finished(config, start, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    start(config, folder)
    return folder


@pytest.fixture
def undisturbed(finished, tmp_path):
    """A copy of a finished run, to be changed at will."""
    return RunFolder(shutil.copytree(finished.path, tmp_path / "undisturbed"))
