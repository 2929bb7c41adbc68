"""The lease on a run folder: the right to train the run, which one process at a time has.

A lease is a numbered file in RUN/.claim/. A process acquires it by creating the next number, which only one process can
do; the highest number is the owner's. The owner renews the time in its file as a heartbeat, and writes at the end how
it ended. A process that finds the lease released, or without a heartbeat, acquires the next number. The newest file is
never removed, so that numbers only grow.
"""

import contextlib
import dataclasses
import socket
import threading
import time
import uuid

import psutil

from gpicl_flax.errors import Damaged, Diverged, GpiclError, Preempted, StorageError, first_line
from gpicl_flax.records import lease_files
from gpicl_flax.records.lease_files import FOLDER, RELEASED, RUNNING, LeaseFiles, LeaseRecord
from gpicl_flax.records.run_folder import RunFolder

HEARTBEAT_SECONDS = 20.0
DONE, DIVERGED, PREEMPTED, FAILED = (
    "done",
    "diverged",
    "preempted",
    "failed",
)  # why it was released; failed: with a text
_MAX_NUMBER = 10**8 - 1  # names have eight digits


class LeaseLost(GpiclError):
    """Another process acquired the lease of this one, which had no heartbeat for LEASE_SECONDS."""


class Lease:
    """The right to train the run in a folder, made by `acquire`.

    It is a context manager: its end releases the lease with the reason.

    Raises:
      LeaseLost: see `check`.
    """

    def __init__(self, folder: RunFolder, files: LeaseFiles, me: LeaseRecord, before: LeaseRecord | None):
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
        if time.monotonic() - self._renewed > lease_files.LEASE_SECONDS and not self._ending.is_set():
            with contextlib.suppress(OSError, StorageError):
                self.lost = self.lost or self._files.numbers()[-1:] > [self.number]
        if self.lost:
            raise LeaseLost(
                f"{self.folder} was taken over by another process, since this one gave no sign of life for "
                f"{lease_files.LEASE_SECONDS:.0f} s"
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
                self.lost = time.monotonic() - self._renewed > lease_files.LEASE_SECONDS


def acquire(folder: RunFolder) -> Lease | LeaseRecord:
    """Returns the lease on a run folder or, if another process holds it, the record of that process."""
    files = LeaseFiles(folder.path)
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
        found = files.numbers()
        if found[-1] != number:
            files.withdraw(number)
            continue
        files.remove(lower_than=number, found=found)
        return Lease(folder, files, me, newest)


def newest(folder: RunFolder) -> LeaseRecord | None:
    """Returns the newest record of a run folder; None if it never had one.

    It may be of a lease that is released or has ended.
    """
    return LeaseFiles(folder.path).newest()


def _why(error: BaseException | None) -> str:
    if error is None:
        return DONE
    if isinstance(error, Diverged):
        return DIVERGED
    if isinstance(error, Preempted) or not isinstance(error, Exception):  # such as a second Ctrl-C
        return PREEMPTED
    return f"{FAILED}: {first_line(error)}"
