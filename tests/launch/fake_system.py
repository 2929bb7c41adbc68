"""A machine in this process, with a clock of its own: gcloud, kubectl and Slurm answer without processes or waiting."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpicl_flax.cli.main import main
from gpicl_flax.launch import system
from gpicl_flax.launch.system import Answer, System
from tests.launch.fake_gcloud import Gcloud
from tests.launch.fake_kubectl import Kubectl
from tests.launch.fake_slurm import Slurm

FOREVER = 1e6  # seconds


class Result(NamedTuple):
    """The end of a command.

    Attributes:
      code: its exit code.
      out: its output.
      err: warnings and the error.
    """

    code: int
    out: str
    err: str


class FakeSystem(System):
    """See above.

    Attributes:
      installed: the programs on PATH.
      answer: of the user; None: nobody can answer.
      before: called with the words of each call, before it is answered.
    """

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.folder, self.here, self.home = folder, folder / "here", folder / "home"
        self.environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        self.installed = {"gcloud", "kubectl", "sbatch", "squeue", "scancel", "gpicl"}
        self.gcloud, self.kubectl, self.slurm = Gcloud(folder), Kubectl(folder / "kubectl"), Slurm()
        self.bucket = self.gcloud.buckets / "bucket"
        self.calls: list[list[str]] = []
        self.before: Callable[[list[str]], None] = lambda words: None
        self.answer: str | None = None
        self.clock, self.lines, self.errors = 0.0, [], []
        self.here.mkdir(exist_ok=True)
        self.home.mkdir(exist_ok=True)

    def path_of(self, program: str) -> str | None:
        return f"/bin/of/{program}" if program in self.installed else None

    def call(self, words: Sequence[str]) -> Answer:
        words = list(words)
        self.before(words)
        self.calls.append(words)
        program = pathlib.Path(words[0]).name
        if program in ("mkdir", "cp", "rm", "diff"):
            return super().call(words)
        if "wheel" in words:
            folder = pathlib.Path(words[words.index("--wheel-dir") + 1])
            (folder / pathlib.Path(f"gpicl_flax-{system_version()}-py3-none-any.whl")).write_text("a wheel")
            return Answer(0, "", "")
        if program == "gpicl":
            return Answer(0, "the table of the runs", "")
        if program in ("gcloud", "kubectl"):
            return getattr(self, program)(words[1:])
        return self.slurm(words)

    def listen(self) -> None:
        pass

    def stop(self) -> None:
        """Does what a Ctrl-C does."""
        self.stops += 1

    def ask(self, question: str) -> str | None:
        return self.answer

    def now(self) -> float:
        return self.clock

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        assert self.clock < FOREVER, "it waits for ever"

    def show(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.errors.append(f"warning: {text}")

    @property
    def said(self) -> list[str]:
        """The lines of the last command, less the time."""
        return [
            line.partition(" ")[2] if line[2:3] == ":" else line for text in self.lines for line in text.split("\n")
        ]


class Here(FakeSystem):
    """This machine, with its processes and its clock; only what it says is kept, and signals are those of a test."""

    path_of, call, now, wait = System.path_of, System.call, System.now, System.wait

    def stop(self) -> None:
        super().stop()
        self._told.set()


def system_version() -> str:
    from gpicl_flax import __version__

    return __version__


def launcher(machine: FakeSystem, monkeypatch, capsys) -> Callable[..., Result]:
    """Returns what calls `gpicl launch` on a machine, as a user of it does."""
    monkeypatch.setattr(system, "System", lambda: machine)
    monkeypatch.chdir(machine.here)
    environment = machine.environment

    def run(*words: str, **more: str) -> Result:
        machine.environment = environment | more
        machine.lines, machine.errors, machine.stops = [], [], 0
        capsys.readouterr()
        try:
            code = main(["launch", *words])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        printed = capsys.readouterr()
        return Result(code, "\n".join([*machine.lines, printed.out]), "\n".join([*machine.errors, printed.err]))

    return run
