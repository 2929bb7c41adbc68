"""Runs the points of a sweep on this machine, stack after stack."""

from collections.abc import Callable, Sequence

from etils import epath

from gpicl_flax.errors import GpiclError, Preempted
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.run import Run, Start, check_folder, execute_stack
from gpicl_flax.sweep import stacking
from gpicl_flax.sweep.grid import Point
from gpicl_flax.training.loop import Row
from gpicl_flax.training.preemption import StopRequest

# From a number of steps and of members to what is called with each row of metrics and the index of its member.
MakeProgress = Callable[[int, int], Callable[[Row, int], None]]


def run_all(
    points: Sequence[Point],
    runs: Sequence[Run],
    workdir: epath.PathLike,
    stop: StopRequest,
    *,
    stack_sizes: stacking.Sizes | None = None,
    make_progress: MakeProgress = lambda total_steps, num_members: lambda row, member: None,
    say: Callable[[str], None] = print,
) -> None:
    """Runs every point in workdir/<run_id>, skipping those that are done or have diverged.

    Args:
      runs: the resolved settings of the points.
      stop: checked during and between the runs.
      stack_sizes: how many points train together (see `stacking.plan`); None: each is alone.
      say: takes a line of text for each point.

    Raises:
      UsageError: a folder holds something else, or the data or devices do not fit; no point has run then.
      Preempted: told to stop; call again to go on.
      GpiclError: at the end, if points diverged, now or earlier.
    """
    folders = [RunFolder(epath.Path(workdir) / point.run_id) for point in points]
    waiting = [index for index, folder in enumerate(folders) if not folder.ended]
    loaded = set()
    for index in waiting:
        run = runs[index]
        check_folder(points[index].config, folders[index])
        run.check_devices()
        for name in (run.tasks.base_dataset, *run.test_names):
            use = (name, run.tasks.data_dir, run.tasks.input_shape, run.tasks.num_classes, run.tasks.sequence_length)
            if use not in loaded:
                loaded.add(use)
                run.tasks.load(name)
    for index, folder in enumerate(folders):
        if folder.ended:
            say(f"{_name(points, index)}: {folder.ended}")
    plan = stacking.plan(
        [points[index] for index in waiting], [runs[index] for index in waiting], stack_sizes or stacking.at_most(1)
    )
    for stack in plan:
        if stop.requested:
            raise Preempted("stopped between two runs; start it again to go on")
        _run_stack([waiting[number] for number in stack], points, runs, folders, stop, make_progress, say)
    diverged = sum(folder.ended == DIVERGED for folder in folders)
    if diverged:
        raise GpiclError(f"{diverged} of {len(points)} points diverged; see the DIVERGED files in {workdir}")


def _run_stack(indices, points, runs, folders, stop, make_progress: MakeProgress, say) -> None:
    for index in indices:
        say(_name(points, index))
    if len(indices) > 1:
        say(f"(these {len(indices)} train together, as a stack)")
    progress = make_progress(runs[indices[0]].training.steps, len(indices))
    starts = [
        Start(points[index].config, folders[index], lambda row, member=member: progress(row, member))
        for member, index in enumerate(indices)
    ]
    for index, diverged in zip(indices, execute_stack(starts, stop), strict=True):
        if diverged:
            say(f"{points[index].run_id}: {diverged}" if len(indices) > 1 else str(diverged))


def _name(points: Sequence[Point], index: int) -> str:
    return f"[{index + 1}/{len(points)}] {points[index].run_id}"
