"""The live progress line of a run or a stack of them.

On a terminal it is one line that rewrites itself; elsewhere it is plain lines.
"""

import contextlib
import shutil
import sys
import time
from typing import Any, TextIO

from gpicl_flax.terminal import durations

_PLAIN_SECONDS = 10.0  # time between plain lines
_LIVE_SECONDS = 0.1


def erase(stream: TextIO) -> str:
    """Returns the text to write before other text, so that it replaces a progress line on a terminal.

    Elsewhere it is empty.
    """
    return "\r\033[K" if stream.isatty() else ""


class ProgressLine:
    """Shows step, steps/s, remaining time, loss, last accuracy or error, plateau. Called with every row of metrics.

    In a stack, each member has a row after every dispatch. The line then shows the step of the first member that still
    trains, the means over the members, and how many have left the plateau.
    """

    def __init__(self, total_steps: int, num_members: int = 1, stream: TextIO | None = None):
        self._total = total_steps
        self._num_members = num_members
        self._rows: dict[int, dict[str, Any]] = {}  # the newest row of each member
        self._turn: list[int] = []  # members with a row after this dispatch
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown_at = -float("inf")
        self._recent: list[tuple[float, int]] = []  # times and steps, over which the speed is measured

    def __call__(self, row: dict[str, Any], member: int = 0) -> None:
        now, step = time.monotonic(), row["step"]
        if member in self._turn:  # the next dispatch; members without a row after the last one have diverged or ended
            self._rows = {m: r for m, r in self._rows.items() if m in self._turn or self._is_last(r)}
            if self._turn[0] != member:
                self._recent = []
            self._turn = []
        self._rows[member] = row
        self._turn.append(member)
        if self._turn[0] != member:
            return
        self._recent = [*self._recent[-20:], (now, step)]
        wait = _LIVE_SECONDS if self._live else _PLAIN_SECONDS
        if now - self._shown_at < wait and not self._is_last(row):
            return
        self._shown_at = now
        last = f"last accuracy {self._mean('accuracy_last'):.1%}" if "accuracy_last" in row else self._last_error(row)
        plateau = "on" if row["plateau"] else "off"
        if self._num_members > 1:
            plateau = f"{sum(not r['plateau'] for r in self._rows.values())} of {self._num_members} members off"
        text = (
            f"step {step:,}/{self._total:,}  {self._speed(now, step)}  loss {self._mean('loss'):.3f}  "
            f"{last}  {plateau} the plateau"
        )
        if self._live:  # cut, because a line that wraps could not be rewritten
            end = "\n" if self._is_last(row) else ""
            text = f"{erase(self._stream)}{text[: shutil.get_terminal_size().columns - 1]}{end}"
        else:
            text += "\n"
        with contextlib.suppress(OSError):  # a run continues when nobody reads any more
            self._stream.write(text)
            self._stream.flush()

    def _is_last(self, row: dict[str, Any]) -> bool:
        return row["step"] >= self._total or "stopped_early" in row

    def _last_error(self, row: dict[str, Any]) -> str:
        name = "squared_error_last" if "squared_error_last" in row else "loss_last"
        return f"last squared error {self._mean(name):.3f}"

    def _mean(self, name: str) -> float:
        return sum(row[name] for row in self._rows.values()) / len(self._rows)

    def _speed(self, now: float, step: int) -> str:
        then, first = self._recent[0]
        if step == first:
            return "steps/s: -"
        speed = (step - first) / (now - then)
        digits = ".1f" if speed >= 1 else ".2g"  # a large model on a small machine makes only a few steps a minute
        return f"{speed:{digits}} steps/s  {durations.in_words((self._total - step) / speed)} left"
