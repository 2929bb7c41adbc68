"""The record of a run's log that each checkpoint carries, by which a resumed run sees whether rows were lost."""

import dataclasses
import hashlib
import json
from typing import Any

from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.training.early_stop import StopState


@dataclasses.dataclass
class LogRecord:
    """How many rows a log has, what they are, and what was decided by them.

    Attributes:
      tracker: the plateau and the phase.
      stop_state: when the run ends.
      rows: the number of rows.
      digest: the digest of all rows, which does not depend on how a row is written.
      gaps: the rows that the log had lost when the run was resumed, see `schemas.LogGap`.
    """

    tracker: PlateauTracker
    stop_state: StopState
    rows: int = 0
    digest: str = ""
    gaps: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LogRecord":
        """Reads the result of `as_json`, which may hold more than this version knows."""
        tracker = PlateauTracker(**_known(PlateauTracker, values["tracker"]))
        stop_state = StopState(**_known(StopState, values["stop_state"]))
        return cls(tracker, stop_state, values["rows"], values["digest"], values["gaps"])

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain JSON, see `schemas.LogRecord`."""
        values = dataclasses.asdict(self)
        if values["tracker"]["targets"] is None:
            del values["tracker"]["targets"]  # the form that records of classes have always had
        for name in ("scores", "leave_probability"):  # likewise, for runs without a `PlateauRule`
            if values["stop_state"][name] is None:
                del values["stop_state"][name]
        return values

    def count(self, row: Row) -> None:
        """Adds a row to the number and the digest of all rows."""
        text = self.digest + json.dumps(row, sort_keys=True)
        self.rows, self.digest = self.rows + 1, hashlib.sha256(text.encode()).hexdigest()

    def with_rows_of(self, found: "LogRecord", step: int) -> "LogRecord":
        """Returns this record for a log that holds other rows up to `step`: with its decisions, and with a new gap."""
        gap = {
            "up_to_step": step,
            "rows_expected": self.rows,
            "rows_found": found.rows,
            "plateau_left_at": self.tracker.exit_step,
            "unseen_plateau_left_at": self.tracker.unseen_exit_step,
        }
        return dataclasses.replace(self, rows=found.rows, digest=found.digest, gaps=[*self.gaps, gap])


def _known(form: type, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in dataclasses.fields(form) if field.name in values}
