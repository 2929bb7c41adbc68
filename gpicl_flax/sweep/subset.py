"""Selects points of a sweep: those that match a pattern, or one of several shares."""

import fnmatch
from collections.abc import Sequence

from gpicl_flax.errors import UsageError
from gpicl_flax.records.selection_rule import SELECT
from gpicl_flax.sweep.grid import Point


def only(points: Sequence[Point], pattern: str | None) -> list[Point]:
    """Returns the points whose run id contains a match of the shell pattern; None: all.

    A run id counts in full, before its end is cut. The id that version 0.1 gave to a point must match as a whole. The
    points that a matching one depends on, in earlier stages of the sweep, are returned as well.

    Raises:
      UsageError: there is none.
    """
    if pattern is None:
        return list(points)
    matching = [_matches(point, pattern) for point in points]
    if not any(matching):
        raise UsageError(f"no run id matches {pattern!r}; the first is {points[0].run_id}")
    needed = {p.configuration for p, matches in zip(points, matching, strict=True) if matches and p.stage != SELECT}
    return [
        point
        for point, matches in zip(points, matching, strict=True)
        if matches or point.stage == SELECT and point.configuration in needed
    ]


def _matches(point: Point, pattern: str) -> bool:
    ids = (point.run_id, "_".join((*point.names, point.digest)))
    return any(fnmatch.fnmatchcase(run_id, f"*{pattern}*") for run_id in ids) or pattern in point.legacy_ids


def shard(points: Sequence[Point], runs: Sequence, number: int, count: int) -> list[int]:
    """Returns the indices of the points of one of `count` shares, 1 <= number <= count, in their order.

    Every point is in one share, and points that depend on each other (those with the same `Point.unit`) are in the same
    one. Points that can train together are in the same share if there are at least as many groups of them as shares.
    The shares depend only on the list of points, so machines do not need to communicate about them.
    """
    from gpicl_flax.sweep import stacking

    groups = _joined(points, stacking.groups(points, runs))
    if len(groups) < count:
        groups = _joined(points, [[index] for index in range(len(points))])
    return sorted(index for group in groups[number - 1 :: count] for index in group)


def _joined(points: Sequence[Point], groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Joins groups of indices that share a unit, in the order of the first of each."""
    joined: list[tuple[set[str], list[int]]] = []
    for group in groups:
        units, indices = {points[index].unit for index in group}, list(group)
        apart = []
        for others in joined:
            if others[0] & units:
                units, indices = units | others[0], [*others[1], *indices]
            else:
                apart.append(others)
        joined = [*apart, (units, indices)]
    return sorted(indices for _, indices in joined)
