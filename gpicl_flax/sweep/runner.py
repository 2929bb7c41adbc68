"""Runs the points of a sweep on this machine, one after another."""

from collections.abc import Callable, Sequence

from etils import epath

from gpicl_flax.errors import Diverged, GpiclError, Preempted
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.run import Run, check_folder, execute
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training.loop import Row
from gpicl_flax.training.preemption import StopRequest


def run_all(
    points: Sequence[Point],
    runs: Sequence[Run],
    workdir: epath.PathLike,
    stop: StopRequest,
    make_progress: Callable[[int], Callable[[Row], None]] = lambda total_steps: lambda row: None,
    say: Callable[[str], None] = print,
) -> None:
    """Runs every point in workdir/<run_id>, skipping those that are done or have diverged.

    Args:
      runs: the resolved settings of the points.
      stop: checked during and between the runs.
      make_progress: from a run's number of steps, what is called with each of its rows of metrics (see `train`).
      say: takes a line of text for each point.

    Raises:
      UsageError: a folder holds something else, or the data or devices do not fit; no point has run then.
      Preempted: told to stop; call again to go on.
      GpiclError: at the end, if points diverged, now or earlier.
    """
    folders = [RunFolder(epath.Path(workdir) / point.run_id) for point in points]
    loaded = set()
    for point, run, folder in zip(points, runs, folders, strict=True):
        if folder.ended:
            continue
        check_folder(point.config, folder)
        run.check_devices()
        for name in (run.tasks.base_dataset, *run.test_names):
            use = (name, run.tasks.data_dir, run.tasks.input_shape, run.tasks.num_classes, run.tasks.sequence_length)
            if use not in loaded:
                loaded.add(use)
                run.tasks.load(name)
    diverged = 0
    for number, (point, run, folder) in enumerate(zip(points, runs, folders, strict=True), start=1):
        say(f"[{number}/{len(points)}] {point.run_id}{f': {folder.ended}' if folder.ended else ''}")
        if stop.requested:
            raise Preempted("stopped between two runs; start it again to go on")
        if not folder.ended:
            try:
                execute(point.config, folder, stop, make_progress(run.training.steps))
            except Diverged as error:
                say(str(error))
        diverged += folder.ended == DIVERGED
    if diverged:
        raise GpiclError(f"{diverged} of {len(points)} points diverged; see the DIVERGED files in {workdir}")
