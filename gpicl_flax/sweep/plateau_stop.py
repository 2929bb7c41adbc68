"""The plateau-aware stop of a sweep: makes the rule of a point from the points of its sweep that have ended."""

from collections.abc import Sequence

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.records import plateau_rule
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.records.snapshot import Snapshot
from gpicl_flax.runs.identity import identifying
from gpicl_flax.runs.plateau_stop import EndedRun, PlateauStop, ended_run, make_rule
from gpicl_flax.runs.run import ResolvedRun
from gpicl_flax.runtime import distributed, gcs
from gpicl_flax.sweep.grid import Point


class PlateauRules:
    """Makes rules for the points of a sweep. A point that has ended is read once.

    Args:
      settings: when runs end; None: no point has a rule.
      points: the points of the sweep.
      resolved: their configurations and settings.
      folders: their folders.

    Raises:
      UsageError: a point that trains has no diagnostics, without which it would never end early.
    """

    def __init__(
        self,
        settings: PlateauStop | None,
        points: Sequence[Point],
        resolved: Sequence[ResolvedRun],
        folders: Sequence[RunFolder],
    ):
        self._settings, self._folders, self._runs = settings, folders, [each.run for each in resolved]
        self._ended: dict[int, EndedRun | None] = {}
        if settings is None:
            return
        for point, run in zip(points, self._runs, strict=True):
            if run.training.steps and run.training.diagnostics is None:
                raise UsageError(
                    f"sweep.plateau_stop needs Training.diagnostics = @Diagnostics(); {point.run_id} has none"
                )
        configs = [identifying(point.config).canonical for point in points]
        self._likeness = [settings.likeness(_short(config)) for config in configs]

    def make(self, index: int) -> PlateauRule | None:
        """Returns the rule of a point that is about to begin; None if it has begun or the stop is off."""
        if self._settings is None or not distributed.is_primary() or plateau_rule.begun(self._folders[index]):
            return None
        alike = [
            other
            for other, likeness in enumerate(self._likeness)
            if other != index and likeness == self._likeness[index]
        ]
        unknown = [other for other in alike if other not in self._ended]
        if unknown:
            found = gcs.each(self._read, unknown, self._folders[index].path)
            self._ended |= {other: run for other, (ended, run) in zip(unknown, found, strict=True) if ended}
        like = [run for other in alike if (run := self._ended.get(other)) is not None]
        return make_rule(self._settings, like, self._runs[index].training.steps)

    def _read(self, index: int) -> tuple[bool, EndedRun | None]:
        """Returns whether a point has ended, and its plateau if it can be read."""
        try:
            snapshot = Snapshot(self._folders[index])
            if not snapshot.ended:
                return False, None
            tracker = PlateauTracker.from_run_info(snapshot.read_run_info())
            return True, ended_run(snapshot.read_rows(self._folders[index].metrics), tracker)
        except (GpiclError, OSError, TypeError):  # --status names what is damaged
            return True, None


def _short(bindings: dict[str, str]) -> dict[str, str]:
    """Returns bindings by the names that gin files give them, without this package's."""
    return {name.removeprefix("gpicl_flax."): value for name, value in bindings.items()}
