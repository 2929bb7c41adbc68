"""Runs the points of a sweep on this machine, one after another."""

from collections.abc import Callable, Sequence

from etils import epath

from gpicl_flax.errors import Diverged, GpiclError
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.run import Run, check_folder, execute
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training.loop import Row


def run_all(
    points: Sequence[Point],
    runs: Sequence[Run],
    workdir: epath.PathLike,
    make_progress: Callable[[int], Callable[[Row], None]] = lambda total_steps: lambda row: None,
    say: Callable[[str], None] = print,
) -> None:
    """Runs every point in workdir/<run_id>, skipping those that are done or have diverged.

    Args:
      runs: the resolved settings of the points.
      make_progress: from a run's number of steps, what is called with each of its rows of metrics (see `train`).
      say: takes a line of text for each point.

    Raises:
      UsageError: a folder holds something else, or the data or devices do not fit.
      Preempted: told to stop; call again to go on.
      GpiclError: at the end, if points diverged, now or earlier.
    """
    folders = [RunFolder(epath.Path(workdir) / point.run_id) for point in points]
    for point, folder in zip(points, folders, strict=True):
        if not folder.ended:
            check_folder(point.config, folder)
    diverged = 0
    for number, (point, run, folder) in enumerate(zip(points, runs, folders, strict=True), start=1):
        say(f"[{number}/{len(points)}] {point.run_id}{f': {folder.ended}' if folder.ended else ''}")
        if not folder.ended:
            try:
                execute(point.config, folder, make_progress(run.training.steps))
            except Diverged as error:
                say(str(error))
        diverged += folder.ended == DIVERGED
    if diverged:
        raise GpiclError(f"{diverged} of {len(points)} points diverged; see the DIVERGED files in {workdir}")
