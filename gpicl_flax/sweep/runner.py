"""Runs the points of a sweep on this machine, stack after stack. Other machines may run the same sweep meanwhile."""

import time
import traceback
from collections.abc import Callable, Sequence

import jax
from etils import epath

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
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import folders, listing, stacking
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.plateau_stop import PlateauRules
from gpicl_flax.tasks.datasets import sources

# Given a number of steps and of members, returns a function of each row of metrics and the index of its member.
MakeProgress = Callable[[int, int], Callable[[Row, int], None]]


def run_all(
    find_points: Callable[[], list[Point]],
    workdir: epath.PathLike,
    stop: StopRequest,
    *,
    stack_sizes: stacking.Sizes | None = None,
    make_progress: MakeProgress = lambda total_steps, num_members: lambda row, member: None,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] | None = None,
    accept_lost_log: bool = False,
    plateau_stop: PlateauStop | None = None,
    poll_seconds: float = 5.0,
) -> None:
    """Runs every point in its folder (see `folders.find`), stage after stage, skipping those that have ended.

    Points that another process trains are skipped at first. At the end of a stage, this process waits for them and
    takes over those that are left unfinished. A point that fails, or whose folder is damaged, does not stop the others.

    Args:
      find_points: returns the points, as far as they are known now (see `stages.points`). Processes that train together
        must get the same ones.
      workdir: the folder of the sweep.
      stop: checked during and between the runs.
      stack_sizes: how many points train together (see `stacking.plan`); None: each trains alone.
      make_progress: see `MakeProgress`.
      say: takes a line of text for each point.
      warn: takes a line for each point that fails, diverges or is lost to another process; None: `say` takes it.
      accept_lost_log: resume points even if their logs have lost rows, see `RunSpec`.
      plateau_stop: when points end because they will not leave their plateau; None: never.
      poll_seconds: the time between checks of what others train, while there is nothing else to do.

    Raises:
      UsageError: a folder holds something else, or the data or devices do not fit; no point has run then. The settings
        of later stages are checked as well.
      Preempted: a stop was requested; call again to resume.
      GpiclError: at the end, if points diverged, now or earlier, or failed now, or if points of a later stage could not
        begin because of that.
    """
    sizes = stack_sizes or stacking.at_most(1)
    problems, begun = [], set()
    points = find_points()
    _check_later([point for point in points if point.is_pending])
    while ready := [point for point in points if not point.is_pending and point.digest not in begun]:
        if any(point.stage for point in ready):
            say(f"{listing.counts(ready)}:")
        resolved = listing.resolve_points(ready)
        sweep = _Sweep(
            ready, resolved, workdir, stop, sizes, make_progress, say, warn or say, accept_lost_log, plateau_stop
        )
        problems += _run(sweep, stop, poll_seconds)
        begun |= {point.digest for point in ready}
        points = find_points()
    if pending := sum(point.is_pending for point in points):
        problems.append(f"{pending} points wait for others that failed, or of which every candidate diverged")
    if problems:
        raise GpiclError("; ".join(problems))


def _check_later(points: Sequence[Point]) -> None:
    """Raises UsageError if points of a later stage cannot run. Their data are only looked for, and not read."""
    located = set()
    for run in listing.resolve_all(points):
        run.check_devices()
        for name in run.tasks.default_datasets(run.base_datasets):
            if name not in located:
                located.add(name)
                sources.find(name)


def _run(sweep: "_Sweep", stop: StopRequest, poll_seconds: float) -> list[str]:
    """Runs all points of a sweep, and returns its problems."""
    # All processes of a slice have to act on the same points, so they agree by `decide` and `any_of`.
    waiting = sweep.not_ended(range(sweep.num_points))
    fit = sweep.check(waiting)
    for index in sorted(set(range(sweep.num_points)) - set(waiting)):
        sweep.say_ended(index)
    sweep.run(fit)
    while sweep.left:
        free = decide(sweep.free)
        if free:
            sweep.run(free)
        elif any_of(stop.requested):
            raise Preempted("stopped while others train the last points; start it again to go on")
        else:
            time.sleep(poll_seconds)
    return sweep.problems()


class _Sweep:
    """The points and their outcomes.

    Attributes:
      num_points: the number of points.
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
        self.num_points = len(points)
        # The first host lists once: another host could already see folders that other workers have begun since then.
        self._folders = folders.find(points, workdir, decide(lambda: folders.listed(workdir)))
        self._rules = PlateauRules(plateau_stop, points, resolved, self._folders)
        self._stop, self._sizes, self._make_progress = stop, sizes, make_progress
        self._say, self._warn = say, warn
        self.left: dict[int, str] = {}
        self.failed: set[int] = set()

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
