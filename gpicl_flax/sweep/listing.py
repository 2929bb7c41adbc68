"""Lists the runs of a sweep, as a table or as JSON lines."""

import json
from collections.abc import Callable, Iterable, Sequence

from gpicl_flax.config import Config
from gpicl_flax.models import SIZE_NAMES
from gpicl_flax.runs.run import ResolvedRun, Run, resolve
from gpicl_flax.sweep.grid import Point
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

    It has the run_id, the bindings (values as gin writes them), the parameters and both state sizes.
    """
    return "\n".join(
        json.dumps({"run_id": point.run_id, "bindings": _bindings(point)} | run.sizes())
        for point, run in zip(points, runs, strict=True)
    )


def as_table(points: Sequence[Point], runs: Sequence[Run]) -> str:
    """Returns a table with a line for each point, and their number."""
    rows = [("run id", *SIZE_NAMES.values(), "bindings")]
    for point, run in zip(points, runs, strict=True):
        sizes = run.sizes()
        bindings = " ".join(f"{key}={value}" for key, value in _bindings(point).items())
        rows.append((point.run_id, *(f"{sizes[key]:,}" for key in SIZE_NAMES), bindings))
    return f"{text_table.render(rows, right=range(1, len(rows[0]) - 1))}\n{len(points)} points"


def _bindings(point: Point) -> dict[str, str]:
    return {key: repr(value) for key, value in point.overrides.items()}
