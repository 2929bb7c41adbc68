"""Writes the logs of all runs of a process in the background, so that training never waits for storage."""

import logging
import threading
import time

from gpicl_flax.errors import Preempted, StorageError, first_line
from gpicl_flax.records import json_lines
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.runtime import gcs

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 5.0  # from the end of one round to the next
_SHARE = 0.02  # of a core's time that rounds may take: with many logs they come less often


class LogWriter:
    """Writes the pending rows of logs every few seconds, those of all logs at once.

    If it fails, the rows stay pending and are tried again in the next round. On gs://, where each round makes one more
    object for each log, `merge` makes each log one object again.

    It is a context manager: it writes in the background inside its block.
    """

    def __init__(self):
        self._logs: list[JsonLines] = []
        self._writing = threading.Lock()
        self._merging = False
        self._warned = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="log writer")

    def add(self, *logs: JsonLines) -> None:
        """Writes these logs from now on."""
        self._logs += logs

    def flush(self) -> None:
        """Writes all pending rows now. Raises StorageError, or OSError if a disk is full, say."""
        with self._writing:
            json_lines.flush(self._logs)

    def merge(self) -> None:
        """Lets the next round make each log one object. Until then, readers find its parts."""
        self._merging = True

    def __enter__(self) -> "LogWriter":
        self._thread.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._ending.set()
        if error is None or isinstance(error, Preempted):  # otherwise storage may be what failed
            self._thread.join()
            with self._writing:
                json_lines.flush(self._logs)
                json_lines.merge(self._logs)

    def _live(self) -> None:
        pause = _WRITE_SECONDS
        while not self._ending.wait(pause):
            begun = _busy_seconds()
            try:
                self._round()
            except (OSError, StorageError) as failure:
                if not self._warned:
                    reason = failure.__cause__ if isinstance(failure.__cause__, Exception) else failure
                    logger.warning("logs cannot be written now (%s); trying again", first_line(reason))
                self._warned = True
            else:
                self._warned = False
            pause = max(_WRITE_SECONDS, (_busy_seconds() - begun) * (1 / _SHARE - 1))

    def _round(self) -> None:
        with self._writing:
            json_lines.flush(self._logs)
            if self._merging:
                self._merging = False
                json_lines.merge(self._logs)


def _busy_seconds() -> float:
    """Returns the time that writing has kept a core busy: that of this thread, and of the one that sends requests."""
    return time.thread_time() + gcs.busy_seconds()
