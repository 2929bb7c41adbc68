"""Runs the points of one stage of a sweep, stack after stack. Other machines may run the same points meanwhile."""

import time
import traceback
from collections.abc import Callable, Sequence

import jax

from gpicl_flax.errors import Damaged, GpiclError, Preempted, StorageError, UsageError, first_line
from gpicl_flax.records import lease
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.run_folder import DIVERGED, DONE
from gpicl_flax.records.selection_rule import SELECT
from gpicl_flax.records.stack_lease import LeaseUnavailable, any_of, decide
from gpicl_flax.runs.check import check_folder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.plateau_stop import PlateauStop
from gpicl_flax.runtime import gcs
from gpicl_flax.sweep import folders, stacking
from gpicl_flax.sweep.plateau_stop import PlateauRules

# Given a number of steps and of members, returns a function of each row of metrics and the index of its member.
MakeProgress = Callable[[int, int], Callable[[Row, int], None]]


class StageRunner:
    """Runs the points of a stage, and keeps their outcomes.

    Attributes:
      left: for each index of a point that another process trains, that process as text.
      failed: the indices of points that failed.
    """

    def __init__(
        self,
        points,
        resolved,
        workdir,
        stop,
        sizes: stacking.Sizes,
        make_progress: MakeProgress,
        say,
        warn,
        accept_lost_log=False,
        plateau_stop: PlateauStop | None = None,
    ):
        self._accept_lost_log = accept_lost_log
        self._points, self._resolved, self._workdir = points, resolved, workdir
        # The first host lists once: another host could already see folders that other workers have begun since then.
        self._folders = folders.find(points, workdir, decide(lambda: folders.listed(workdir)))
        self._rules = PlateauRules(plateau_stop, points, resolved, self._folders)
        self._stop, self._sizes, self._make_progress = stop, sizes, make_progress
        self._say, self._warn = say, warn
        self.left: dict[int, str] = {}
        self.failed: set[int] = set()

    def run_all(self, poll_seconds: float) -> list[str]:
        """Runs all points, waits for those that others train, and returns a phrase for each kind of problem."""
        # All processes of a slice have to act on the same points, so they agree by `decide` and `any_of`.
        indices = range(len(self._points))
        waiting = self.not_ended(indices)
        fit = self.check(waiting)
        for index in sorted(set(indices) - set(waiting)):
            self.say_ended(index)
        self.run(fit)
        while self.left:
            free = decide(self.free)
            if free:
                self.run(free)
            elif any_of(self._stop.requested):
                raise Preempted("stopped while others train the last points; start it again to go on")
            else:
                time.sleep(poll_seconds)
        return self.problems()

    def not_ended(self, indices) -> list[int]:
        def look() -> list[int]:
            ended = gcs.each(lambda index: self._folders[index].ended, indices, self._workdir)
            return [index for index, marker in zip(indices, ended, strict=True) if not marker]

        return decide(look)

    def check(self, indices: Sequence[int]) -> list[int]:
        """Returns the indices without those of damaged folders; raises UsageError if any other point cannot run."""

        def damage(index: int) -> Damaged | None:
            try:
                check_folder(self._points[index].config, self._folders[index])
            except Damaged as error:
                return error
            return None

        loaded, fit = set(), []
        for index, error in zip(indices, gcs.each(damage, indices, self._workdir), strict=True):
            if error is not None:
                self._fail(index, error)
                continue
            run = self._resolved[index].run
            fit.append(index)
            run.check_devices()
            for name in run.base_datasets:
                use = type(run.tasks), name, run.tasks.data_settings
                if use not in loaded:
                    loaded.add(use)
                    run.tasks.load(name)
        return fit

    def _fail(self, index: int, error: Exception) -> None:
        self._warn(f"{self._points[index].run_id}: failed: {first_line(error)}")
        self.failed.add(index)

    def say_ended(self, index: int) -> None:
        self._say(f"{self._name(index)}: {self._folders[index].ended}")

    def free(self) -> list[int]:
        """Returns the points left to others that have ended or are available now."""
        left = list(self.left)
        holders = gcs.each(lambda index: self._folders[index].ended or self._holder(index), left, self._workdir)
        return [index for index, holder in zip(left, holders, strict=True) if holder in ("", DONE, DIVERGED)]

    def run(self, indices: Sequence[int]) -> None:
        """Runs these points in stacks, except for those that others train."""
        for index in indices:
            self.left.pop(index, None)
        plan = stacking.plan([self._points[i] for i in indices], [self._resolved[i].run for i in indices], self._sizes)
        for stack in plan:
            if any_of(self._stop.requested):
                raise Preempted("stopped between two runs; start it again to go on")
            self._run_stack([indices[number] for number in stack])

    def problems(self) -> list[str]:
        """Returns a phrase for the points that failed, and one for those that diverged, where there are any.

        A run by which a setting is chosen may diverge: that says something about the setting.
        """
        ends = decide(lambda: gcs.each(lambda folder: folder.ended, self._folders, self._workdir))
        diverged = sum(end == DIVERGED and point.stage != SELECT for end, point in zip(ends, self._points, strict=True))
        problems = []
        if self.failed:
            problems.append(
                f"{len(self.failed)} of {len(self._points)} points failed; start it again to try them again"
            )
        if diverged:
            problems.append(
                f"{diverged} of {len(self._points)} points diverged; see the DIVERGED files in {self._workdir}"
            )
        return problems

    def _run_stack(self, indices: Sequence[int]) -> None:
        """Runs one stack, without the members that others train or that have ended."""
        while indices := self._to_be_had(indices):
            try:
                self._execute(indices)
                return
            except LeaseUnavailable:
                continue
            except Preempted:
                raise
            except Exception as error:
                if jax.process_count() > 1:  # the other processes may be in any state
                    raise
                if isinstance(error, StorageError):  # the other points are there as well
                    raise
                if isinstance(error, lease.LeaseLost):
                    self._warn(str(error))
                    continue
                if isinstance(error, Damaged) and len(indices) > 1:
                    for index in indices:  # alone, a member with a damaged folder does not stop the others
                        self._run_stack([index])
                    return
                if isinstance(error, UsageError) and not isinstance(error, Damaged):
                    if self.not_ended(indices) == indices:
                        raise
                    continue  # another worker has just marked one DIVERGED
                if not isinstance(error, GpiclError):
                    traceback.print_exc()
                for index in self.not_ended(indices):
                    self._fail(index, error)
                return

    def _to_be_had(self, indices: Sequence[int]) -> list[int]:
        """Returns those of these points that are neither held by others nor ended."""

        def look() -> list[str]:
            return gcs.each(lambda i: "ended" if self._folders[i].ended else self._holder(i), indices, self._workdir)

        had = []
        for index, record in zip(indices, decide(look), strict=True):
            if record == "ended":
                self.say_ended(index)
            elif record:
                self._say(f"{self._name(index)}: left to {record}")
                self.left[index] = record
            else:
                had.append(index)
        return had

    def _holder(self, index: int) -> str:
        newest = lease.newest(self._folders[index])
        return str(newest) if newest and newest.holds else ""

    def _execute(self, indices: Sequence[int]) -> None:
        progress = self._make_progress(self._resolved[indices[0]].run.training.steps, len(indices))
        specs = [
            RunSpec(
                self._resolved[index],
                self._folders[index],
                [lambda row, member=member: progress(row, member)],
                self._accept_lost_log,
                self._rules.make(index),
            )
            for member, index in enumerate(indices)
        ]
        ends = execute(specs, self._stop, on_begin=lambda: self._say_begun(indices))
        for index, diverged in zip(indices, ends, strict=True):
            if diverged:
                self._warn(f"{self._points[index].run_id}: {diverged}")

    def _say_begun(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._say(self._name(index))
        if len(indices) > 1:
            self._say(f"(these {len(indices)} train together, as a stack)")

    def _name(self, index: int) -> str:
        run_id, folder = self._points[index].run_id, self._folders[index].path.name
        elsewhere = "" if folder == run_id else f" (in {folder})"
        return f"[{index + 1}/{len(self._points)}] {run_id}{elsewhere}"
