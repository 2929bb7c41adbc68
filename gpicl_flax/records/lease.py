"""Who trains a run: a claim on its folder, so that one process at a time does.

A claim is a numbered file in RUN/.claim/. It is taken by creating the next number, which only one process can do; the owner
is the highest number there. The owner renews the time in its file as a sign of life, and says at the end how it ended. Who
finds a claim released, or without a sign of life, takes the next number. The newest file is never removed, so that
numbers only grow.
"""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
import uuid

import fsspec
import psutil
from fsspec.implementations.local import LocalFileSystem

from gpicl_flax.errors import Diverged, GpiclError, Preempted, first_line
from gpicl_flax.records.run_folder import RunFolder

RENEWED_SECONDS = 20.0
DEAD_SECONDS = 90.0  # without a sign of life; clocks of hosts may differ by the rest
RUNNING, RELEASED = "running", "released"
DONE, DIVERGED, PREEMPTED, FAILED = (
    "done",
    "diverged",
    "preempted",
    "failed",
)  # why it was released; failed: with a text
FOLDER = ".claim"


class Lost(GpiclError):
    """Another process took a run over, since this one gave no sign of life."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """What a claim says.

    Attributes:
      number: of the claim.
      host, pid, started: the process, and when it started (unix time).
      since: when it took the claim (unix time).
      time: of its last sign of life (unix time).
      state: running, or released.
      why: released: done, diverged, preempted, "failed: text", or "" if it did nothing.
      token: a random text, which tells this claim from any other.
    """

    number: int
    host: str
    pid: int
    started: float
    since: float
    time: float
    state: str = RUNNING
    why: str = ""
    token: str = ""

    def __str__(self) -> str:
        return f"host {self.host}, process {self.pid}"

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this host, whose life can be seen."""
        return self.host == socket.gethostname()

    @property
    def holds(self) -> bool:
        """Whether it trains the run, as far as one can tell from here."""
        if self.state != RUNNING or time.time() - self.time > DEAD_SECONDS:
            return False
        if not self.is_here:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 2.0  # a number may be given again
        except psutil.NoSuchProcess:
            return False


class Claim:
    """The right to train the run in a folder, from `take`; a context manager, which says how it ended.

    Raises:
      Lost: see `check`.
    """

    def __init__(self, folder: RunFolder, files: "_Files", me: Holder, before: Holder | None):
        self.folder = folder
        self.lost = False
        self._files, self._me, self._before = files, me, before
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name=f"claim of {folder}")
        self._thread.start()

    @property
    def number(self) -> int:
        return self._me.number

    def check(self) -> None:
        """Raises Lost if another process has taken the run over."""
        if self.lost:
            raise Lost(
                f"{self.folder} was taken over by another process, since this one gave no sign of life for "
                f"{DEAD_SECONDS:.0f} s"
            )

    def release(self, why: str) -> None:
        """Lets others have it; `why` is one of done, diverged, preempted, "failed: text"."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        if not self.lost and self._files.numbers()[-1:] == [self.number]:
            self._files.rewrite(dataclasses.replace(self._me, time=time.time(), state=RELEASED, why=why))

    def withdraw(self) -> None:
        """Lets others have it, as if it had not been taken."""
        before = self._before
        self.release(PREEMPTED if before and before.state == RUNNING else before.why if before else "")

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        ended = self.folder.ended
        self.release(ended.lower() if ended else _why(error))

    def _live(self) -> None:
        renewed = time.monotonic()
        while not self._ending.wait(RENEWED_SECONDS):
            try:
                if self._files.numbers()[-1:] > [self.number]:
                    self.lost = True
                    return
                self._files.rewrite(dataclasses.replace(self._me, time=time.time()))
                renewed = time.monotonic()
            except Exception:  # of any storage: it may be there again soon
                self.lost = time.monotonic() - renewed > DEAD_SECONDS


def take(folder: RunFolder) -> Claim | Holder:
    """The claim on the run in a folder, or who holds it."""
    files = _Files(folder)
    process = psutil.Process()
    while True:
        newest = files.newest()
        if newest is not None and newest.holds:
            return newest
        now = time.time()
        number = newest.number + 1 if newest else 1
        me = Holder(number, socket.gethostname(), process.pid, process.create_time(), now, now)
        me = dataclasses.replace(me, token=uuid.uuid4().hex)
        # A request that was sent twice, since its answer was lost, finds what it created.
        if not files.create(me) and files.newest() != me:
            continue
        # Who was slow may have created a number that had been used and removed.
        if files.numbers()[-1] != number:
            files.remove(number)
            continue
        for older in files.numbers()[:-1]:
            files.remove(older)
        return Claim(folder, files, me, newest)


def newest(folder: RunFolder) -> Holder | None:
    """What the newest claim on a run says, also of one that is released or dead; None: there was none."""
    return _Files(folder).newest()


def _why(error: BaseException | None) -> str:
    if error is None:
        return DONE
    if isinstance(error, Diverged):
        return DIVERGED
    if isinstance(error, Preempted) or not isinstance(error, Exception):  # Ctrl-C twice
        return PREEMPTED
    return f"{FAILED}: {first_line(error)}"


class _Files:
    """The files of the claims on a run."""

    def __init__(self, folder: RunFolder):
        self._fs, self._folder = fsspec.core.url_to_fs(str(folder.path / FOLDER))
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def numbers(self) -> list[int]:
        """Ascending."""
        self._fs.invalidate_cache()  # listings of others' files must be new
        try:
            names = [path.rpartition("/")[2] for path in self._fs.ls(self._folder, detail=False)]
        except FileNotFoundError:
            return []
        return sorted(int(name[:8]) for name in names if len(name) == 13 and name[:8].isdecimal())

    def newest(self) -> Holder | None:
        while numbers := self.numbers():
            try:
                return self._read(numbers[-1])
            except FileNotFoundError:  # somebody took the next one and removed this
                continue
        return None

    def create(self, holder: Holder) -> bool:
        """Writes a claim whose number is not there; False if it is."""
        path, data = self._path(holder.number), _data(holder)
        try:
            if self._is_local:  # where fsspec would look first and write then
                os.makedirs(self._folder, exist_ok=True)
                with open(path, "xb") as file:
                    file.write(data)
            else:
                self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def rewrite(self, holder: Holder) -> None:
        """Writes a claim anew, such that a reader sees all of it."""
        path, data = self._path(holder.number), _data(holder)
        if not self._is_local:
            self._fs.pipe_file(path, data)
            return
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)

    def remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(number))

    def _read(self, number: int) -> Holder:
        path = self._path(number)
        try:
            return Holder(number=number, **json.loads(self._fs.cat_file(path)))
        except (ValueError, TypeError):  # just created; or never finished, then its age shows it
            modified = self._fs.modified(path).timestamp()
            return Holder(number, "(unknown)", 0, 0.0, modified, modified)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"


def _data(holder: Holder) -> bytes:
    fields = dataclasses.asdict(holder)
    del fields["number"]
    return json.dumps(fields).encode()
