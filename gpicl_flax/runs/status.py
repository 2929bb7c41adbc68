"""The status of a run, from its folder alone."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from gpicl_flax.errors import Damaged, first_line
from gpicl_flax.records import lease, phase, schemas
from gpicl_flax.records.criteria import Criteria, curve_gain
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.records.snapshot import Snapshot

DAMAGED = "damaged"
STATES = ("done", "running", "waiting", "preempted", "diverged", "failed", DAMAGED)
ENDED = ("done", "diverged")

_RECENT_ROWS = 20  # the speed is measured over these


@dataclasses.dataclass(frozen=True)
class Status:
    """The status of one run.

    Attributes:
      run_id: the name of its folder.
      state: one of STATES. preempted: it can be resumed; this includes runs whose process was killed. waiting: no
        process has begun it. damaged: a file of its folder is.
      step: the last step in its log; None: there is none.
      steps: the steps of the whole run; None: it has not begun.
      loss: its moving average, in nats or as squared error.
      accuracy: the accuracy at the last position; None: its targets are numbers, or it has not begun.
      seconds_left: the time until its last step, at the recent speed; None: it is not running, or its speed is unknown.
      who: the process that trains it. For a run that failed or is damaged: why, and what to do.
      plateau: whether its average loss is still at the height of its plateau.
      plateau_left_at: the first step at which the loss was below it; None: it was not.
      phase: the phase as far as it is known (see `records.phase`). For a run that has ended: by its last meta-test.
      stopped_early: why it ended before its last step, 'plateau' or 'converged'.
      log_gaps: a phrase for each gap in its log, see `training.run_log`.
      squared_error: that at the last position, for a run whose targets are numbers.
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
    log_gaps: tuple[str, ...] = ()
    squared_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the attributes; the squared error only for a run that has one."""
        values = dataclasses.asdict(self)
        if self.squared_error is None:
            del values["squared_error"]
        return values

    def as_json(self) -> str:
        """Returns one line of JSON."""
        return json.dumps(self.as_dict())

    @property
    def plateau_in_words(self) -> str:
        """The state of its plateau in words: on it, or when it was left; empty: it has no log yet."""
        if self.plateau_left_at is None:
            return {None: "", True: "on it", False: "left"}[self.plateau]
        return f"left at {self.plateau_left_at:,}" + ", back" * bool(self.plateau)


def read_status(run_id: str, folder: RunFolder) -> Status:
    """Returns the status of the run in a folder, which need not exist and may be damaged."""
    try:
        return _read_status(run_id, folder)
    except (Damaged, OSError) as error:
        return Status(run_id, DAMAGED, who=first_line(error))


def _read_status(run_id: str, folder: RunFolder) -> Status:
    snapshot = Snapshot(folder)
    record, ended = snapshot.newest_lease(), snapshot.ended
    if record is not None and record.why in ENDED and not ended:  # a run is released after its marker
        snapshot = Snapshot(folder)
        ended = snapshot.ended
    state, who = _state(record, ended)
    run_info: dict[str, Any] = snapshot.read_run_info() if snapshot.has(folder.run_info) else {}  # not there yet
    gaps = tuple(schemas.gap_in_words(gap) for gap in run_info.get("log_gaps", []))
    steps = run_info.get("steps")
    rows = snapshot.read_last_rows(folder.metrics, 1)
    if not rows:
        return Status(run_id, state, steps=steps, who=who, log_gaps=gaps)
    row = rows[-1]
    left, stopped_early = None, row.get("stopped_early")
    if state == "running" and record is not None and steps is not None and not stopped_early:
        speed = _steps_a_second(snapshot, record.since)
        left = (steps - row["step"]) / speed if speed else None
    return Status(
        run_id,
        state,
        row["step"],
        steps,
        row["loss_ema"],
        row.get("accuracy_last"),
        left,
        who,
        row["plateau"],
        row.get("plateau_left_at"),
        _phase(row, run_info, snapshot),
        stopped_early,
        gaps,
        None if "accuracy_last" in row else row.get("squared_error_last", row.get("loss_last")),
    )


def _phase(row: Mapping[str, Any], run_info: Mapping[str, Any], snapshot: Snapshot) -> str | None:
    """Returns the phase in the last row, or that of the newest meta-test where it says more."""
    exit_step, evaluation = row.get("plateau_left_at"), None
    files = snapshot.evaluation_files()
    if exit_step is not None and files and (snapshot.ended or row.get("phase") is None):
        evaluation = snapshot.read_evaluation(files[-1])
    if evaluation is None or evaluation["step"] < exit_step or not {"num_tasks", "base_dataset"} <= run_info.keys():
        return row.get("phase")
    own = ("unseen", run_info["base_dataset"]["name"])
    curves = [curve for curve in evaluation["curves"] if (curve["tasks"], curve["base_dataset"]) == own]
    gain = curve_gain(curves[0], Criteria.from_run_info(run_info)) if curves else None
    return phase.classify(True, gain, run_info["num_tasks"] or math.inf)


def _state(record: lease.LeaseRecord | None, ended: str | None) -> tuple[str, str]:
    """Returns the state, and who has the run or why it failed."""
    if ended:
        return ended.lower(), ""
    if record is None or record.state == lease.RELEASED and not record.why:
        return "waiting", ""
    if record.holds:
        return "running", str(record)
    if record.why.startswith(lease.FAILED):
        return "failed", f"host {record.host}: {record.why.removeprefix(lease.FAILED).removeprefix(': ')}"
    return "preempted", ""


def _steps_a_second(snapshot: Snapshot, since: float) -> float | None:
    last = snapshot.read_last_rows(snapshot.folder.timing, _RECENT_ROWS, schemas.TIMING, enough=2)
    rows = [row for row in last if row["time"] >= since]
    if len(rows) < 2 or rows[-1]["time"] <= rows[0]["time"]:
        return None
    return (rows[-1]["step"] - rows[0]["step"]) / (rows[-1]["time"] - rows[0]["time"])
