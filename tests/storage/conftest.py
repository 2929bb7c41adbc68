"""Small runs on gs://, in processes of their own, and the same runs on a disk."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BINDINGS = [
    "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "Training.steps = 1600",
    "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 400", "Training.diagnostics = @Diagnostics()",
    "Diagnostics.period = 200", "Diagnostics.num_sequences = 8", "MetaTest.at_checkpoints = False",
]  # fmt: skip
# Credentials are those of the tests. Two libraries say so.
_ABOUT_CREDENTIALS = re.compile(r"WARNING:google\.auth|.*GOOGLE_AUTH_TOKEN_FOR_TESTING")


@dataclasses.dataclass
class Command:
    """A process of `gpicl`, with its output in two files."""

    process: subprocess.Popen
    folder: pathlib.Path
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def errors(self) -> list[str]:
        """The lines on stderr."""
        lines = (self.folder / "errors").read_text().splitlines()
        return [line for line in lines if line and not _ABOUT_CREDENTIALS.match(line)]

    def wait(self, seconds: float = 600.0) -> int:
        """Returns its exit code."""
        return self.process.wait(seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Blocks until a condition holds, about which the server is asked now and then."""
        until = time.monotonic() + seconds
        while not condition():
            assert self.is_alive, self.errors
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.2)

    def succeed(self) -> float:
        """Blocks until it ends; fails unless that is with success. Returns its time in seconds."""
        assert self.wait() == 0, self.errors
        return time.monotonic() - self.started


@pytest.fixture
def start(gcs, tmp_path):
    """Starts a command in a process of its own, which uses the fake server."""
    commands = []

    def start(*arguments, program=("-m", "gpicl_flax")) -> Command:
        folder = pathlib.Path(tempfile.mkdtemp(dir=tmp_path))
        with open(folder / "output", "w") as output, open(folder / "errors", "w") as errors:
            process = subprocess.Popen([sys.executable, *program, *arguments], cwd=ROOT, stdout=output, stderr=errors)
        commands.append(Command(process, folder))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture(scope="session")
def options(small_bindings):
    """Options of a command for runs of a few seconds with four checkpoints."""
    return gin_options([*small_bindings, *BINDINGS])


@pytest.fixture(scope="session")
def undisturbed(options, tmp_path_factory):
    """The files of a run on the local disk that nothing disturbed, by their names."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    command = [sys.executable, "-m", "gpicl_flax", "train", "--workdir", str(folder), *options, "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True)
    return local_files(folder)


def gin_options(bindings):
    return ["--gin_file", "gin/base.gin"] + [text for each in bindings for text in ("--gin_bindings", each)]


def local_files(folder):
    """The contents of all files below a folder, by their paths in it."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder): pathlib.Path(path).read_bytes() for path in sorted(paths)}


def remote_files(gcs, folder):
    """The contents of all objects below a folder of the bucket, by their paths in it."""
    return {name.removeprefix(f"{folder}/"): data for name, data in gcs.objects("bucket", f"{folder}/").items()}


def below(files, folder):
    """Those of some files that are below a folder, by their paths in it."""
    return {name.removeprefix(f"{folder}/"): data for name, data in files.items() if name.startswith(f"{folder}/")}


def results(files):
    """What must depend neither on the place of a run nor on what happens to it: everything but the times.

    Leases are numbered and checkpoints are in the manner of the place. There is one lease, and of the checkpoints the
    steps are known.
    """
    found, checkpoints = {}, set()
    for name, data in files.items():
        first, _, rest = name.partition("/")
        if first == ".claim":
            found["leases"] = found.get("leases", 0) + 1
        elif first == "checkpoints":
            checkpoints.add(rest.partition("/")[0])
        elif name == "timing.jsonl":
            found[name] = re.findall(rb'"step": (\d+)', data)
        else:
            found[name] = data
    return found | {"checkpoints": checkpoints}
