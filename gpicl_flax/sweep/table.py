"""Shows how far the points of a sweep are, as a table or live on a terminal."""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

from etils import epath

from gpicl_flax.runs import status
from gpicl_flax.runs.status import ENDED, STATES, Status
from gpicl_flax.sweep import folders
from gpicl_flax.sweep.grid import Point
from gpicl_flax.terminal import durations, text_table

_READERS = 16  # folders read at once, because gs:// answers slowly but serves many requests at a time
_REFRESH_SECONDS = 5.0


def read_all(points: Sequence[Point], workdir: epath.PathLike) -> list[Status]:
    """Returns the status of each point, under the name of its folder."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(
            pool.map(lambda folder: status.read_status(folder.path.name, folder), folders.find(points, workdir))
        )


def counts(found: Sequence[Status]) -> str:
    """Returns how many points are in which state."""
    number = Counter(each.state for each in found)
    states = ", ".join(f"{number[state]} {state}" for state in STATES if number[state])
    early = sum(each.stopped_early is not None for each in found)
    return f"{len(found)} points{': ' * bool(states)}{states}{f'; {early} stopped early' * bool(early)}"


def as_table(found: Sequence[Status]) -> str:
    """Returns a table with a line for each point, and how many are in which state."""
    rows = [("run id", "state", "step", "loss", "last accuracy", "plateau", "phase", "time left", "who")]
    for each in found:
        total = "" if each.steps is None else f"/{each.steps:,}"
        rows.append(
            (
                each.run_id,
                each.state,
                f"{each.step or 0:,}{total}" if total or each.step is not None else "",
                "" if each.loss is None else f"{each.loss:.3f}",
                _score(each),
                each.plateau_in_words,
                (each.phase or "").lower(),
                "" if each.seconds_left is None else durations.in_words(each.seconds_left),
                _remark(each),
            )
        )
    return f"{text_table.render(rows, right=(2, 3, 4, 7))}\n{counts(found)}"


def _score(each: Status) -> str:
    """Returns the accuracy or the squared error at the last position."""
    if each.accuracy is not None:
        return f"{each.accuracy:.1%}"
    return "" if each.squared_error is None else f"error {each.squared_error:.3f}"


def _remark(each: Status) -> str:
    """Returns who trains a run, or what else there is to say about it."""
    stopped_early = [f"stopped early: {each.stopped_early}"] if each.stopped_early else []
    return each.who or "; ".join([*stopped_early, *each.log_gaps])


def watch(
    find_points: Callable[[], Sequence[Point]],
    workdir: epath.PathLike,
    stream: TextIO,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the table on a terminal, in place, until all points have ended or Ctrl-C.

    Args:
      find_points: returns the points, which can become known only while others end.
      workdir: the folder of the sweep.
      stream: the terminal.
      sleep: waits for some seconds.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = read_all(find_points(), workdir)
            ended = all(each.state in ENDED for each in found)
            table = as_table(found)
            stream.write(f"\033[H\033[2J{table if ended else _cut(table)}\n")
            stream.flush()
            if ended:
                return
            sleep(_REFRESH_SECONDS)


def _cut(table: str) -> str:
    """Returns as much of a table as fits on a terminal, including its last line."""
    columns, height = shutil.get_terminal_size()
    *lines, last = table.split("\n")
    shown = max(1, height - 3)
    if len(lines) > shown:
        lines = [*lines[:shown], f"... and {len(lines) - shown} more"]
    return "\n".join(line[:columns] for line in [*lines, last])
