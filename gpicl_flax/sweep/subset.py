"""Selects points of a sweep: those that match a pattern, or one of several shares."""

import fnmatch
from collections.abc import Sequence

from gpicl_flax.errors import UsageError
from gpicl_flax.sweep.grid import Point


def only(points: Sequence[Point], pattern: str | None) -> list[Point]:
    """Returns the points whose run id contains a match of the shell pattern; None: all.

    A run id counts in full, before its end is cut. The id that version 0.1 gave to a point must match as a whole.

    Raises:
      UsageError: there is none.
    """
    if pattern is None:
        return list(points)
    found = [point for point in points if _matches(point, pattern)]
    if not found:
        raise UsageError(f"no run id matches {pattern!r}; the first is {points[0].run_id}")
    return found


def _matches(point: Point, pattern: str) -> bool:
    ids = (point.run_id, "_".join((*point.names, point.digest)))
    return any(fnmatch.fnmatchcase(run_id, f"*{pattern}*") for run_id in ids) or pattern in point.legacy_ids


def shard(points: Sequence[Point], runs: Sequence, number: int, count: int) -> list[int]:
    """Returns the indices of the points of one of `count` shares, 1 <= number <= count, in their order.

    Every point is in one share. Points that can train together are in the same share if there are at least as many
    groups of them as shares. The shares depend only on the list of points, so machines do not need to communicate about
    them.
    """
    from gpicl_flax.sweep import stacking

    groups = stacking.groups(points, runs)
    if len(groups) < count:
        groups = [[index] for index in range(len(points))]
    return sorted(index for group in groups[number - 1 :: count] for index in group)
