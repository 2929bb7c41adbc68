"""Runs the points of a sweep on this machine, stage after stage. Other machines may run the same sweep meanwhile."""

from collections.abc import Callable, Sequence

from etils import epath

from gpicl_flax.errors import GpiclError
from gpicl_flax.records.selection_rule import SELECT
from gpicl_flax.runs.plateau_stop import PlateauStop
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import listing, stacking
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.stage_runner import MakeProgress, StageRunner
from gpicl_flax.tasks.datasets import sources


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
        # What chooses comes first, alone: nothing of the test is read before it has ended.
        ready = [point for point in ready if point.stage == SELECT] or ready
        if any(point.stage for point in ready):
            say(f"{listing.counts(ready)}:")
        resolved = listing.resolve_points(ready)
        stage = StageRunner(
            ready, resolved, workdir, stop, sizes, make_progress, say, warn or say, accept_lost_log, plateau_stop
        )
        problems += stage.run_all(poll_seconds)
        begun |= {point.digest for point in ready}
        points = find_points()
    if pending := sum(point.is_pending for point in points):
        problems.append(
            f"{pending} points wait for others, which have not ended, are damaged, or diverged with every candidate"
        )
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
