"""Worker processes on this machine, and their pid files: `PID START`, by which later processes are told apart."""

import contextlib
import os
import pathlib
import re
import subprocess
from collections.abc import Mapping, Sequence

import psutil


def pid_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the pid file of a worker."""
    return folder / f"{name}.pid"


def log_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the log of a worker."""
    return folder / f"{name}.log"


def live(folder: pathlib.Path, name: str) -> psutil.Process | None:
    """Returns the process of a worker, if it is alive."""
    try:
        pid, start = pid_path(folder, name).read_text().split()
        process = psutil.Process(int(pid))
        is_alive = abs(process.create_time() - float(start)) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return process if is_alive else None


def start(folder: pathlib.Path, name: str, words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Starts a worker, in a session of its own, so that Ctrl-C does not reach it."""
    with log_path(folder, name).open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    pid_path(folder, name).write_text(f"{process.pid} {psutil.Process(process.pid).create_time()!r}\n")
    return process


def numbers(folder: pathlib.Path, name: str) -> list[int]:
    """Returns the shards of a name that have a pid file, ascending."""
    found = (re.fullmatch(rf"{re.escape(name)}-(\d+)\.pid", path.name) for path in folder.glob(f"{name}-*.pid"))
    return sorted(int(match[1]) for match in found if match)


def tell(process: psutil.Process, number: int) -> None:
    """Sends a signal to a worker, unless it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def usable_cores(pid: int = 0) -> list[int]:
    """Returns the CPU cores that a process may use; none if it has ended, or the system does not tell."""
    with contextlib.suppress(ProcessLookupError, AttributeError):
        return sorted(os.sched_getaffinity(pid))
    return []
