"""The files of leases, see `records.lease`: RUN/.claim/NUMBER.json, one for each process that ever had the lease."""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Mapping

import psutil
from etils import epath

from gpicl_flax.errors import Damaged
from gpicl_flax.records import schemas
from gpicl_flax.records.run_folder import parse_json, write_together
from gpicl_flax.runtime import gcs

LEASE_SECONDS = 90.0  # a lease without a heartbeat ends after this, which includes a margin for clocks that differ
RUNNING, RELEASED = "running", "released"
FOLDER = ".claim"  # its name since the first version, by which workers of all versions find each other


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


class LeaseFiles:
    """The lease files of a run folder.

    Args:
      folder: the run folder.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder / FOLDER

    def numbers(self) -> list[int]:
        """Returns the numbers of the lease files, ascending."""
        return numbers(self._names())

    def newest(self) -> LeaseRecord | None:
        """Returns the record with the highest number, or None. On gs://, the listing shows it."""
        while found := self._names():
            try:
                record = newest(self._folder.parent, found)
            except FileNotFoundError:  # another process acquired the next number and removed this one
                continue
            return record
        return None

    def create(self, record: LeaseRecord) -> bool:
        """Writes a lease file with a new number; returns False if the number exists."""
        path, data = self._path(record.number), _data(record)
        try:
            if gcs.is_remote(path):
                gcs.write({str(path): data}, create=True)
                return True
            self._make_folder()
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def rewrite(self, record: LeaseRecord) -> None:
        """Replaces a lease file, such that a reader sees the old text or the new one."""
        write_together(self._folder, {self._path(record.number).name: _data(record)})

    def remove(self, lower_than: int, found: list[int]) -> None:
        """Removes the lease files of lower numbers, and what killed processes left half written."""
        older = [self._path(number) for number in found if number < lower_than]
        if gcs.is_remote(self._folder):
            gcs.remove(map(str, older))
            return
        parts = self._folder.glob(".*.tmp")
        for path in [*older, *(part for part in parts if not part.name.startswith(f".{lower_than:08d}"))]:
            with contextlib.suppress(OSError):  # another process was faster, or it is no file
                path.unlink()

    def withdraw(self, number: int) -> None:
        """Removes the file of this number, which this process has just created."""
        with contextlib.suppress(OSError):
            self._path(number).unlink()

    def _names(self) -> Mapping[str, gcs.Entry | None]:
        if gcs.is_remote(self._folder):
            return {f"{FOLDER}/{name}": entry for name, entry in gcs.listing(self._folder).items()}
        try:
            return {f"{FOLDER}/{name}": None for name in os.listdir(self._folder)}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def _make_folder(self) -> None:
        try:
            os.makedirs(self._folder, exist_ok=True)
        except FileExistsError:
            raise Damaged(f"{self._folder} is damaged: it is no folder; delete it") from None

    def _path(self, number: int) -> epath.Path:
        return self._folder / f"{number:08d}.json"


def numbers(names) -> list[int]:
    """Returns the numbers of lease files, ascending, given the paths in the run folder."""
    own = [name.removeprefix(f"{FOLDER}/") for name in names if name.startswith(f"{FOLDER}/")]
    return sorted(int(name[:8]) for name in own if len(name) == 13 and name[:8].isdecimal())


def newest(folder: epath.Path, names: Mapping[str, gcs.Entry | None]) -> LeaseRecord | None:
    """Returns the record with the highest number among the paths in a run folder, or None.

    Raises:
      FileNotFoundError: its file has been removed.
    """
    found = numbers(names)
    if not found:
        return None
    name = f"{FOLDER}/{found[-1]:08d}.json"
    return _read(folder / name, found[-1], names[name])


def _read(path: epath.Path, number: int, entry: gcs.Entry | None) -> LeaseRecord:
    """Returns the record in a lease file. Where the file does not say it, its age is the time of the heartbeat."""
    try:
        if entry is None and os.path.exists(path) and not os.path.isfile(path):
            raise Damaged(f"{path} is damaged: it is no regular file")
        data = entry.contents if entry and entry.contents is not None else path.read_bytes()
        fields = schemas.LEASE.check(parse_json(data.decode()), str(path))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, Damaged):  # just created, never finished, or damaged
        modified = _modified(path, entry)
        return LeaseRecord(number, "(unknown)", 0, 0.0, modified, modified)
    record = LeaseRecord(number, **{name: fields[name] for name in _FIELDS if name in fields})
    if record.time - time.time() > LEASE_SECONDS:  # no clock is that far ahead: the lease would never end
        record = dataclasses.replace(record, time=min(record.time, _modified(path, entry)))
    return record


def _modified(path: epath.Path, entry: gcs.Entry | None) -> float:
    return entry.modified if entry else os.stat(path).st_mtime


def _data(record: LeaseRecord) -> bytes:
    fields = dataclasses.asdict(record)
    del fields["number"]
    return json.dumps(fields).encode()
