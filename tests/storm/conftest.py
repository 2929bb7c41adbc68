"""Small runs that are killed and damaged."""

import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINDINGS = [
    "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "Training.steps = 1200",
    "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 10", "Training.diagnostics = @Diagnostics()",
    "Diagnostics.period = 20", "Diagnostics.num_sequences = 8", "MetaTest.at_checkpoints = False",
]  # fmt: skip


@pytest.fixture(scope="session")
def options(small_bindings):
    """Options of a command for runs of a few seconds."""
    found = ["--gin_file", "gin/base.gin"]
    for binding in [*small_bindings, *BINDINGS]:
        found += ["--gin_bindings", binding]
    return found


@pytest.fixture
def start(options):
    """Starts a command in a process of its own, with its output in a file."""
    processes = []

    def start(log, *arguments, more=(), program=("-m", "gpicl_flax")):
        command = [sys.executable, *program, *arguments, *options, *more]
        with open(log, "a") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def results(folder):
    """What must not depend on kills: metrics, evaluations, configuration, facts and marker."""
    names = ["metrics.jsonl", "run.json", "config.gin", "operative_config.gin", "DONE"]
    names += [os.path.join("eval", name) for name in sorted(os.listdir(os.path.join(folder, "eval")))]
    found = {}
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def leftovers(folder):
    """Files that a killed process did not finish."""
    return [name for _, folders, files in os.walk(folder) for name in [*folders, *files] if re.search(r"tmp", name)]
