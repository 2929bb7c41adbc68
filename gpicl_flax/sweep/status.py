"""How far the points of a sweep are, from their run folders alone."""

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from etils import epath

from gpicl_flax import durations, text_table
from gpicl_flax.errors import UsageError
from gpicl_flax.records import claim, json_lines, phase
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.sweep.grid import Point

STATES = ("done", "running", "waiting", "preempted", "diverged", "failed")
ENDED = ("done", "diverged")

_READERS = 16  # folders at once: gs:// answers slowly, and many at a time
_RECENT_ROWS = 20  # that the speed is measured over
_REFRESH_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Status:
    """One point.

    Attributes:
      run_id: of the point.
      state: one of STATES. preempted: to be gone on with, also where its process was killed; waiting: nobody has begun.
      step: the last that is in its log; None: none is.
      steps: of the whole run; None: it has not begun.
      loss: its moving average, in nats.
      accuracy: at the last position.
      seconds_left: until its last step, at the speed of the last steps; None: it does not run, or there is no telling.
      who: which process trains it; for one that failed, why it did.
      plateau: whether its average loss is at the height of its plateau.
      plateau_left_at: the step at which it was first under it; None: it was not.
      phase: as far as it is known (see `records.phase`): of a point that ended, by its last meta-test.
      stopped_early: why it ended before its last step, 'plateau' or 'converged'.
    """

    run_id: str
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    seconds_left: float | None = None
    who: str = ""
    plateau: bool | None = None
    plateau_left_at: int | None = None
    phase: str | None = None
    stopped_early: str | None = None

    def as_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def plateau_in_words(self) -> str:
        """How it stands by its plateau; empty: it has no log yet."""
        if self.plateau_left_at is None:
            return {None: "", True: "on it", False: "left"}[self.plateau]
        return f"left at {self.plateau_left_at:,}" + ", back" * bool(self.plateau)


def read_all(points: Sequence[Point], workdir: epath.PathLike) -> list[Status]:
    """The status of each point."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda point: read(point.run_id, RunFolder(epath.Path(workdir) / point.run_id)), points))


def read(run_id: str, folder: RunFolder) -> Status:
    """The status of the run in a folder, which need not exist."""
    holder, ended = claim.newest(folder), folder.ended  # in this order: one that ends now is released after its marker
    state, who = _state(holder, ended)
    facts: dict[str, Any] = {}
    with contextlib.suppress(UsageError):  # not there yet
        facts = folder.read_facts()
    steps = facts.get("steps")
    rows = json_lines.read_last(folder.metrics, 1)
    if not rows:
        return Status(run_id, state, steps=steps, who=who)
    row = rows[-1]
    left, stopped_early = None, row.get("stopped_early")
    if state == "running" and steps is not None and not stopped_early:
        speed = _steps_a_second(folder, holder.since)
        left = (steps - row["step"]) / speed if speed else None
    return Status(
        run_id,
        state,
        row["step"],
        steps,
        row["loss_ema"],
        row["accuracy_last"],
        left,
        who,
        row["plateau"],
        row.get("plateau_left_at"),
        _phase(row, facts, folder, ended),
        stopped_early,
    )


def _phase(row: Mapping[str, Any], facts: Mapping[str, Any], folder: RunFolder, ended: str | None) -> str | None:
    """What the last row says, or the newest meta-test where that tells more."""
    left_at, evaluation = row.get("plateau_left_at"), None
    if left_at is not None and (ended or row["phase"] is None):
        with contextlib.suppress(UsageError):  # damaged
            evaluation = folder.latest_evaluation()
    if evaluation is None or evaluation["step"] < left_at or "num_tasks" not in facts:
        return row.get("phase")
    own = ("unseen", facts["base_dataset"]["name"])
    curves = [curve["accuracy"] for curve in evaluation["curves"] if (curve["tasks"], curve["base_dataset"]) == own]
    gain = curves[0][-1] - curves[0][0] if curves else None
    return phase.of(True, gain, facts["num_tasks"] or math.inf)


def _state(holder: claim.Holder | None, ended: str | None) -> tuple[str, str]:
    """The state, and who has it or why it failed."""
    if ended:
        return ended.lower(), ""
    if holder is None or holder.state == claim.RELEASED and not holder.why:
        return "waiting", ""
    if holder.holds:
        return "running", str(holder)
    if holder.why.startswith(claim.FAILED):
        return "failed", f"host {holder.host}: {holder.why.removeprefix(claim.FAILED).removeprefix(': ')}"
    return "preempted", ""


def _steps_a_second(folder: RunFolder, since: float) -> float | None:
    rows = [row for row in json_lines.read_last(folder.timing, _RECENT_ROWS) if row["time"] >= since]
    if len(rows) < 2 or rows[-1]["time"] <= rows[0]["time"]:
        return None
    return (rows[-1]["step"] - rows[0]["step"]) / (rows[-1]["time"] - rows[0]["time"])


def counts(found: Sequence[Status]) -> str:
    """How many points are in which state."""
    number = Counter(each.state for each in found)
    states = ", ".join(f"{number[state]} {state}" for state in STATES if number[state])
    early = sum(each.stopped_early is not None for each in found)
    return f"{len(found)} points{': ' * bool(states)}{states}{f'; {early} stopped early' * bool(early)}"


def as_table(found: Sequence[Status]) -> str:
    """A line a point, and how many are in which state."""
    rows = [("run id", "state", "step", "loss", "last accuracy", "plateau", "phase", "time left", "who")]
    for each in found:
        of = "" if each.steps is None else f"/{each.steps:,}"
        rows.append(
            (
                each.run_id,
                each.state,
                f"{each.step or 0:,}{of}" if of or each.step is not None else "",
                "" if each.loss is None else f"{each.loss:.3f}",
                "" if each.accuracy is None else f"{each.accuracy:.1%}",
                each.plateau_in_words,
                (each.phase or "").lower(),
                "" if each.seconds_left is None else durations.in_words(each.seconds_left),
                each.who or (f"stopped early: {each.stopped_early}" if each.stopped_early else ""),
            )
        )
    return f"{text_table.render(rows, right=(2, 3, 4, 7))}\n{counts(found)}"


def watch(
    points: Sequence[Point], workdir: epath.PathLike, stream: TextIO, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Shows the table on a terminal, in place, until all points have ended or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = read_all(points, workdir)
            ended = all(each.state in ENDED for each in found)
            table = as_table(found)
            stream.write(f"\033[H\033[2J{table if ended else _cut(table)}\n")
            stream.flush()
            if ended:
                return
            sleep(_REFRESH_SECONDS)


def _cut(table: str) -> str:
    """As much of a table as a terminal shows, its last line included."""
    columns, height = shutil.get_terminal_size()
    *lines, last = table.split("\n")
    shown = max(1, height - 3)
    if len(lines) > shown:
        lines = [*lines[:shown], f"... and {len(lines) - shown} more"]
    return "\n".join(line[:columns] for line in [*lines, last])
