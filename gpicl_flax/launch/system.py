"""The world outside: commands, files, time, signals and output. Tests give the engines another one."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from gpicl_flax.errors import GpiclError
from gpicl_flax.launch.actions import Action, Command, WriteFile, shown


class Answer(NamedTuple):
    """The answer of a command.

    Attributes:
      code: its exit code; 127 where there is no such command.
      output: what it printed, without the last newline.
      error: the last line of its complaint that names an error, otherwise the last line.
    """

    code: int
    output: str
    error: str


class Stopped(GpiclError):
    """Ctrl-C, or a signal that tells to stop, after everything was put in order."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class System:
    """This machine.

    Attributes:
      environment: its environment variables.
      stops: how often it was told to stop.
      stop_signal: by which signal, at last.
    """

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = os.environ
        self.stops = 0
        self.stop_signal = signal.SIGINT
        self._told = threading.Event()

    def path_of(self, program: str) -> str | None:
        """Returns where a program is on PATH; None where it is not."""
        return shutil.which(program, path=self.environment.get("PATH"))

    def call(self, words: Sequence[str]) -> Answer:
        """Runs a command to its end. A Ctrl-C at the terminal does not reach it: it ends by itself."""
        try:
            done = subprocess.run(
                words, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            return Answer(127, "", f"{words[0]} is not installed")
        complaints = done.stderr.splitlines() or [""]
        errors = [text for text in complaints if "error" in text.lower()]
        return Answer(done.returncode, done.stdout.rstrip("\n"), (errors or complaints)[-1])

    def do(self, actions: Iterable[Action]) -> None:
        """Does what actions say; raises GpiclError, with what its failure means, if a command fails."""
        for action in actions:
            if isinstance(action, Command):
                answer = self.call(action.words)
                if answer.code:
                    why = answer.error or f"{shown(action)} ended with exit code {answer.code}"
                    raise GpiclError(f"{action.failure}: {why}" if action.failure else why)
            elif isinstance(action, WriteFile):
                action.path.parent.mkdir(parents=True, exist_ok=True)
                action.path.write_text(action.text)

    def now(self) -> float:
        """Returns seconds since some moment."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Waits so long, or until it is told to stop."""
        self._told.wait(seconds)
        self._told.clear()

    def listen(self) -> None:
        """Counts from now on how often this process is told to stop, in `stops`, instead of ending.

        A signal that was ignored at its start stays so: nohup says that the end of the terminal is not meant.
        """

        def stop(number, frame):
            del frame
            self.stops += 1
            self.stop_signal = signal.Signals(number)
            self._told.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, stop)

    def stopped(self, message: str) -> NoReturn:
        """Says so, and raises the error with which a command ends that was told to stop."""
        self.say(message)
        raise Stopped(signal.SIGINT if self.stop_signal == signal.SIGINT else signal.SIGTERM, "interrupted")

    def ask(self, question: str) -> str | None:
        """Returns an answer of the user, '' at the end of input; None where nobody can answer."""
        if not sys.stdin.isatty():
            return None
        try:
            return input(question)
        except EOFError:
            return ""

    def say(self, text: str) -> None:
        """Prints a line with the time."""
        self.show(f"{time.strftime('%H:%M:%S')} {text}")

    def warn(self, text: str) -> None:
        """Prints a warning with the time, on stderr."""
        print(f"{time.strftime('%H:%M:%S')} warning: {text}", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)


def caches(environment: Mapping[str, str]) -> pathlib.Path:
    """Returns the folder in which launches keep what they make."""
    home = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '')}/.cache"
    return pathlib.Path(home) / "gpicl_flax" / "launch"
