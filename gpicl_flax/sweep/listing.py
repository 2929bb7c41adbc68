"""Lists the runs of a sweep, as a table or as JSON lines."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpicl_flax.config import Config
from gpicl_flax.models import SIZE_NAMES
from gpicl_flax.runs.run import ResolvedRun, Run, resolve
from gpicl_flax.sweep.grid import STAGES_IN_WORDS, Point
from gpicl_flax.terminal import text_table


def resolve_points(points: Iterable[Point]) -> list[ResolvedRun]:
    """Resolves every point; raises UsageError that names the point if one is wrong, before anything runs."""
    return [_of_point(point, resolve) for point in points]


def resolve_all(points: Iterable[Point]) -> list[Run]:
    """Returns the settings of every point; raises as `resolve_points` does, and takes a fraction of its time."""
    return [_of_point(point, lambda config: config.settings(Run)) for point in points]


def _of_point[T](point: Point, resolve_config: Callable[[Config], T]) -> T:
    try:
        return resolve_config(point.config)
    except Exception as error:
        error.args = (f"{point.run_id}: {error}",)
        raise


def as_json(points: Sequence[Point], runs: Sequence[Run]) -> str:
    """Returns a JSON object for each point, one on each line.

    It has the run_id, the bindings (values as gin writes them), the parameters and both state sizes. In a sweep of
    several stages it has the stage of the point, and whether it is pending, so that its id is not known yet.
    """
    return "\n".join(
        json.dumps({"run_id": point.run_id, "bindings": _bindings(point)} | run.sizes() | _stage(point))
        for point, run in zip(points, runs, strict=True)
    )


def _stage(point: Point) -> dict[str, Any]:
    return {"stage": point.stage, "pending": point.is_pending} if point.stage else {}


def as_table(points: Sequence[Point], runs: Sequence[Run]) -> str:
    """Returns a table with a line for each point, and their number."""
    rows = [("run id", *SIZE_NAMES.values(), "bindings")]
    for point, run in zip(points, runs, strict=True):
        sizes = run.sizes()
        bindings = " ".join(f"{key}={value}" for key, value in _bindings(point).items())
        rows.append((point.run_id, *(f"{sizes[key]:,}" for key in SIZE_NAMES), bindings))
    return f"{text_table.render(rows, right=range(1, len(rows[0]) - 1))}\n{counts(points)}"


def counts(points: Sequence[Point]) -> str:
    """Returns how many points there are, and how many in which stage of the sweep."""
    number = Counter(point.stage for point in points if point.stage)
    stages = ", ".join(f"{count} {STAGES_IN_WORDS[stage]}" for stage, count in number.items())
    return f"{len(points)} points{': ' * bool(stages)}{stages}"


def _bindings(point: Point) -> dict[str, str]:
    return {key: repr(value) for key, value in point.overrides.items()}
