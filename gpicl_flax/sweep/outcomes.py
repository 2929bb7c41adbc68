"""The outcomes of points, by which later stages of a sweep are determined."""

import math
from collections.abc import Callable, Sequence

from etils import epath

from gpicl_flax.errors import Damaged
from gpicl_flax.records import selection_rule
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.records.snapshot import Snapshot
from gpicl_flax.runtime import gcs
from gpicl_flax.sweep import folders
from gpicl_flax.sweep.grid import Point

# Given points and the name of a metric, returns their scores, see `read`.
Outcomes = Callable[[Sequence[Point], str], list[float | None]]


def unknown(points: Sequence[Point], metric: str) -> list[float | None]:
    """Stands for a sweep of which nothing has run yet."""
    return [None] * len(points)


def in_folder(workdir: epath.PathLike) -> Outcomes:
    """Returns a function that reads outcomes in the folder of a sweep."""

    def outcomes(points: Sequence[Point], metric: str) -> list[float | None]:
        found = folders.find(points, workdir)
        return gcs.each(lambda folder: read(folder, metric), found, workdir)

    return outcomes


def read(folder: RunFolder, metric: str) -> float | None:
    """Returns the score of a run (see `selection_rule.score`).

    Returns None for a run that has not ended, minus infinity for one that diverged, and NaN for one whose files are
    damaged.
    """
    snapshot = Snapshot(folder)
    if not snapshot.ended:
        return None
    if snapshot.ended == DIVERGED:
        return -math.inf
    try:
        files = snapshot.evaluation_files()
        if not files:
            raise Damaged(f"{folder} has no meta-test")
        evaluation = snapshot.read_evaluation(files[-1])
        return selection_rule.score(evaluation, snapshot.read_run_info()["base_dataset"]["name"], metric)
    except (Damaged, KeyError):  # --status shows the first with its reason; an older version wrote the latter
        return math.nan
