"""Further processes for work that Python's threads would only take in turns."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_MANY = 100  # runs from which on processes, which take two seconds to start, are faster
_MOST = 4  # each may hold all results in memory


def fastest(runs: int) -> int:
    """Returns with how many processes so many runs are read and drawn fastest on this machine."""
    return min(os.cpu_count() or 1, _MOST) if runs >= _MANY else 1


def executor(
    processes: int, preload: str, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Returns an executor with so many processes, which import the main module: it must do nothing when imported.

    They are forked not from this process, whose libraries may have threads, but from a server without any.

    Args:
      processes: their number.
      preload: the module that the server imports when it starts, with the first executor, so that no process has to.
      initializer: called in each process.
      initargs: its arguments.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(processes, context, initializer, initargs)
