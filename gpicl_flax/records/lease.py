"""The lease on a run folder: the right to train the run, which one process at a time has.

A lease is a numbered file in RUN/.claim/. A process acquires it by creating the next number, which only one process can
do; the highest number is the owner's. The owner renews the time in its file as a heartbeat, and writes at the end how
it ended. A process that finds the lease released, or without a heartbeat, acquires the next number. The newest file is
never removed, so that numbers only grow.
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
from etils import epath
from fsspec.implementations.local import LocalFileSystem

from gpicl_flax.errors import Damaged, Diverged, GpiclError, Preempted, first_line
from gpicl_flax.records import schemas
from gpicl_flax.records.run_folder import RunFolder, parse_json, write_together

HEARTBEAT_SECONDS = 20.0
LEASE_SECONDS = 90.0  # a lease without a heartbeat ends after this, which includes a margin for clocks that differ
RUNNING, RELEASED = "running", "released"
DONE, DIVERGED, PREEMPTED, FAILED = (
    "done",
    "diverged",
    "preempted",
    "failed",
)  # why it was released; failed: with a text
_MAX_NUMBER = 10**8 - 1  # names have eight digits
FOLDER = ".claim"  # its name since the first version, by which workers of all versions find each other


class LeaseLost(GpiclError):
    """Another process acquired the lease of this one, which had no heartbeat for LEASE_SECONDS."""


@dataclasses.dataclass(frozen=True)
class LeaseRecord:
    """The contents of a lease file.

    Attributes:
      number: the number of the lease.
      host, pid, started: the process, and when it started (unix time).
      since: when it acquired the lease (unix time).
      time: its last heartbeat (unix time).
      state: running, or released.
      why: why it was released: done, diverged, preempted, "failed: text", or "" if it did nothing.
      token: a random text, which distinguishes this lease from any other.
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
        """Whether the process is on this host, which can see whether it is alive."""
        return self.host == socket.gethostname()

    @property
    def holds(self) -> bool:
        """Whether its process trains the run, as far as this host can see."""
        if self.state != RUNNING or time.time() - self.time > LEASE_SECONDS:
            return False
        if not self.is_here:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 2.0  # a pid may be reused
        except (psutil.Error, ValueError, OverflowError):  # no such process, or no number of one
            return False


_FIELDS = [field.name for field in dataclasses.fields(LeaseRecord) if field.name != "number"]


class Lease:
    """The right to train the run in a folder, made by `acquire`.

    It is a context manager: its end releases the lease with the reason.

    Raises:
      LeaseLost: see `check`.
    """

    def __init__(self, folder: RunFolder, files: "_Files", me: LeaseRecord, before: LeaseRecord | None):
        self.folder = folder
        self.lost = False
        self._files, self._me, self._before = files, me, before
        self._renewed = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name=f"lease on {folder}")
        self._thread.start()

    @property
    def number(self) -> int:
        return self._me.number

    def check(self) -> None:
        """Raises LeaseLost if another process has acquired the lease meanwhile."""
        # A process that was stopped may get here before its thread has looked at the files.
        if time.monotonic() - self._renewed > LEASE_SECONDS and not self._ending.is_set():
            with contextlib.suppress(OSError):
                self.lost = self.lost or self._files.numbers()[-1:] > [self.number]
        if self.lost:
            raise LeaseLost(
                f"{self.folder} was taken over by another process, since this one gave no sign of life for "
                f"{LEASE_SECONDS:.0f} s"
            )

    def release(self, why: str) -> None:
        """Lets other processes acquire the lease. `why` is one of done, diverged, preempted, "failed: text"."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        if not self.lost and self._files.numbers()[-1:] == [self.number]:
            self._files.rewrite(dataclasses.replace(self._me, time=time.time(), state=RELEASED, why=why))

    def withdraw(self) -> None:
        """Lets other processes acquire the lease, as if this one had never had it."""
        before = self._before
        self.release(PREEMPTED if before and before.state == RUNNING else before.why if before else "")

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        ended = self.folder.ended
        self.release(ended.lower() if ended else _why(error))

    def _live(self) -> None:
        while not self._ending.wait(HEARTBEAT_SECONDS):
            try:
                if self._files.numbers()[-1:] > [self.number]:
                    self.lost = True
                    return
                self._files.rewrite(dataclasses.replace(self._me, time=time.time()))
                self._renewed = time.monotonic()
            except Exception:  # any storage can fail, and may work again soon
                self.lost = time.monotonic() - self._renewed > LEASE_SECONDS


def acquire(folder: RunFolder) -> Lease | LeaseRecord:
    """Returns the lease on a run folder or, if another process holds it, the record of that process."""
    files = _Files(folder)
    process = psutil.Process()
    while True:
        newest = files.newest()
        if newest is not None and newest.holds:
            return newest
        now = time.time()
        number = newest.number + 1 if newest else 1
        if newest and number > _MAX_NUMBER:
            raise Damaged(f"{folder.path / FOLDER} is damaged: a lease has the number {newest.number}; delete it")
        me = LeaseRecord(number, socket.gethostname(), process.pid, process.create_time(), now, now)
        me = dataclasses.replace(me, token=uuid.uuid4().hex)
        # A request whose answer was lost is sent again. The second request finds the file that the first one created.
        if not files.create(me) and files.newest() != me:
            continue
        # A slow process may have recreated a number that was already used and deleted.
        if files.numbers()[-1] != number:
            files.remove(number)
            continue
        files.remove_older(number)
        return Lease(folder, files, me, newest)


def newest(folder: RunFolder) -> LeaseRecord | None:
    """Returns the newest record of a run folder; None if it never had one.

    It may be of a lease that is released or has ended.
    """
    return _Files(folder).newest()


def _why(error: BaseException | None) -> str:
    if error is None:
        return DONE
    if isinstance(error, Diverged):
        return DIVERGED
    if isinstance(error, Preempted) or not isinstance(error, Exception):  # such as a second Ctrl-C
        return PREEMPTED
    return f"{FAILED}: {first_line(error)}"


class _Files:
    """The lease files of a run folder."""

    def __init__(self, folder: RunFolder):
        self._fs, self._folder = fsspec.core.url_to_fs(str(folder.path / FOLDER))
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def numbers(self) -> list[int]:
        """Returns the numbers of the lease files, ascending."""
        self._fs.invalidate_cache()  # listings of others' files must be new
        try:
            names = [path.rpartition("/")[2] for path in self._fs.ls(self._folder, detail=False)]
        except FileNotFoundError:
            return []
        return sorted(int(name[:8]) for name in names if len(name) == 13 and name[:8].isdecimal())

    def newest(self) -> LeaseRecord | None:
        while numbers := self.numbers():
            try:
                return self._read(numbers[-1])
            except FileNotFoundError:  # another process acquired the next number and removed this one
                continue
        return None

    def create(self, record: LeaseRecord) -> bool:
        """Writes a lease file with a new number; returns False if the number exists."""
        path, data = self._path(record.number), _data(record)
        if self._is_local:
            try:
                os.makedirs(self._folder, exist_ok=True)
            except FileExistsError:
                raise Damaged(f"{self._folder} is damaged: it is no folder; delete it") from None
        try:
            if self._is_local:  # fsspec would check and write in separate steps here
                with open(path, "xb") as file:
                    file.write(data)
            else:
                self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def rewrite(self, record: LeaseRecord) -> None:
        """Replaces a lease file, such that a reader sees the old text or the new one."""
        path, data = self._path(record.number), _data(record)
        if not self._is_local:
            self._fs.pipe_file(path, data)
            return
        write_together(epath.Path(self._folder), {os.path.basename(path): data})

    def remove_older(self, number: int) -> None:
        """Removes the lease files of lower numbers, and what killed processes left half written."""
        for older in self.numbers()[:-1]:
            self.remove(older)
        if self._is_local:
            for name in os.listdir(self._folder):
                if name.endswith(".tmp") and not name.startswith(f".{number:08d}"):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._folder, name))

    def remove(self, number: int) -> None:
        with contextlib.suppress(OSError):  # another process was faster, or it is no file
            self._fs.rm_file(self._path(number))

    def _read(self, number: int) -> LeaseRecord:
        """Returns the record in a lease file. Where the file does not say it, its age is the time of the heartbeat."""
        path = self._path(number)
        try:
            if self._is_local and os.path.exists(path) and not os.path.isfile(path):
                raise Damaged(f"{path} is damaged: it is no regular file")
            fields = schemas.LEASE.check(parse_json(self._fs.cat_file(path).decode()), path)
        except FileNotFoundError:
            raise
        except (ValueError, OSError, Damaged):  # just created, never finished, or damaged
            modified = self._modified(path)
            return LeaseRecord(number, "(unknown)", 0, 0.0, modified, modified)
        record = LeaseRecord(number, **{name: fields[name] for name in _FIELDS if name in fields})
        if record.time - time.time() > LEASE_SECONDS:  # no clock is that far ahead: the lease would never end
            record = dataclasses.replace(record, time=min(record.time, self._modified(path)))
        return record

    def _modified(self, path: str) -> float:
        return self._fs.modified(path).timestamp()

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"


def _data(record: LeaseRecord) -> bytes:
    fields = dataclasses.asdict(record)
    del fields["number"]
    return json.dumps(fields).encode()
