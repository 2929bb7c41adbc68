"""What a sweep would run, as a table or as JSON lines."""

import json
from collections.abc import Iterable, Sequence

from gpicl_flax.run import Run
from gpicl_flax.sweep.grid import Point

_COLUMNS = {"parameters": "parameters", "state_size_paper": "state (paper)", "state_size_exact": "state (exact)"}


def resolve_all(points: Iterable[Point]) -> list[Run]:
    """The settings of every point; raises UsageError if one of them is wrong, naming it, before anything runs."""
    runs = []
    for point in points:
        try:
            runs.append(point.config.resolve(Run)[0])
        except Exception as error:
            error.args = (f"{point.run_id}: {error}",)
            raise
    return runs


def as_json(points: Sequence[Point], runs: Sequence[Run]) -> str:
    """A JSON object a point: run_id, bindings (values as gin writes them), parameters, both state sizes."""
    return "\n".join(
        json.dumps({"run_id": point.run_id, "bindings": _bindings(point)} | run.sizes())
        for point, run in zip(points, runs, strict=True)
    )


def as_table(points: Sequence[Point], runs: Sequence[Run]) -> str:
    """A line a point, and how many there are."""
    rows = [("run id", *_COLUMNS.values(), "bindings")]
    for point, run in zip(points, runs, strict=True):
        sizes = run.sizes()
        bindings = " ".join(f"{key}={value}" for key, value in _bindings(point).items())
        rows.append((point.run_id, *(f"{sizes[key]:,}" for key in _COLUMNS), bindings))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in rows
    ]
    return "\n".join([*lines, f"{len(points)} points"])


def _bindings(point: Point) -> dict[str, str]:
    return {key: repr(value) for key, value in point.overrides.items()}
