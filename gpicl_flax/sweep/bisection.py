"""Bisection: a sweep that finds the value at which runs begin to reach a score, from coarse to fine.

Example::

    sweep.bisect = {'TaskDistribution.num_tasks': [16, 65536]}
    sweep.bisect_threshold = 0.3

Every configuration of the grid, which is its points that differ in `Run.seed` alone, is trained at the coarse values. A
value passes if the mean over the seeds reaches the threshold on unseen tasks. Where two neighbours differ in that,
their geometric mean comes next, until they are as close as asked for. Of several changes, the lowest is followed. Which
points come next is a function of the run folders alone, and each of them is the run that a grid with its value
would have. All of them are reported: the scores decide where to measure, and choose no setting.

The settings are:
  sweep.bisect: a binding with at least two positive numbers, ascending. Between integers, values are integers.
  sweep.bisect_metric: 'accuracy', that at the last position; or 'loss', its mean over the positions.
  sweep.bisect_threshold: the accuracy that a value must reach, or the loss that it may not exceed.
  sweep.bisect_resolution: the ratio of two neighbours that is close enough, above 1.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from gpicl_flax.bindings import kinds
from gpicl_flax.bindings.kinds import Range
from gpicl_flax.config import Config, short_key
from gpicl_flax.errors import UsageError
from gpicl_flax.records import selection_rule
from gpicl_flax.runs.scale import BISECT, are_bindings, sweep_setting
from gpicl_flax.sweep import derived
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.outcomes import Outcomes

PENDING = "bisected"  # stands for a value that is not known yet

Value = int | float
Scores = Mapping[Value, Sequence[float | None]]  # those of the seeds at each value


class Bracket(NamedTuple):
    """Two neighbouring values between which runs begin, or cease, to reach the threshold."""

    low: Value
    high: Value


@dataclasses.dataclass(frozen=True)
class Bisection:
    """The settings of a bisection, see above.

    Attributes:
      name: the binding, as gin writes it.
      coarse: the values to begin with.
      metric, threshold, resolution: see above.
    """

    name: str
    coarse: tuple[Value, ...]
    metric: str
    threshold: float
    resolution: float

    @classmethod
    def from_config(cls, config: Config) -> "Bisection | None":
        """Reads the settings of a sweep; None: it bisects nothing.

        Raises:
          UsageError: they have a wrong form.
        """
        given = config.bindings.get(BISECT)
        if given is None:
            return None
        if not are_bindings(given) or len(given) != 1:
            raise UsageError(f"{BISECT} must be {{binding: values}}, with one binding")
        ((name, values),) = given.items()
        numbers = isinstance(values, list | tuple) and all(map(_is_number, values))
        if not numbers or len(values) < 2 or not 0 < values[0] or any(map(lambda a, b: a >= b, values, values[1:])):
            raise UsageError(f"{BISECT}: {name} must have at least two positive numbers, ascending, not {values!r}")
        found = cls(
            short_key(name),
            tuple(values),
            metric=sweep_setting(config, "sweep.bisect_metric"),
            threshold=sweep_setting(config, "sweep.bisect_threshold"),
            resolution=sweep_setting(config, "sweep.bisect_resolution"),
        )
        if found.metric not in selection_rule.METRICS:
            names = ", ".join(selection_rule.METRICS)
            raise UsageError(f"sweep.bisect_metric must be one of {names}, not {found.metric!r}")
        if found.threshold is None:
            raise UsageError(f"{BISECT} needs sweep.bisect_threshold, a number")
        kinds.check("sweep.bisect_threshold", found.threshold, kinds.Number)
        kinds.check("sweep.bisect_resolution", found.resolution, Annotated[float, Range(1, 1e30)])
        if found.resolution == 1:
            raise UsageError("sweep.bisect_resolution must be above 1")
        return found

    def passes(self, scores: Sequence[float]) -> bool:
        """Returns whether the mean of the scores of a value (see `selection_rule.score`) reaches the threshold."""
        if not all(map(math.isfinite, scores)):  # a run diverged
            return False
        mean = math.fsum(scores) / len(scores)
        return mean >= (self.threshold if self.metric == selection_rule.ACCURACY else -self.threshold)

    def middle(self, bracket: Bracket) -> Value | None:
        """Returns the value to be measured between two others; None: they are close enough."""
        low, high = bracket
        if high / low <= self.resolution:
            return None
        value = math.sqrt(low * high)
        if isinstance(low, int) and isinstance(high, int):
            value = round(value)
        return value if low < value < high else None

    def bracket(self, scores: Scores) -> Bracket | None:
        """Returns the lowest neighbours of which one passes; None: there are none. All scores are known."""
        values = sorted(scores)
        passes = [self.passes([score for score in scores[value] if score is not None]) for value in values]
        changes = (Bracket(a, b) for a, b, x, y in zip(values, values[1:], passes, passes[1:], strict=False) if x != y)
        return next(changes, None)

    def most_steps(self) -> int:
        """Returns how many values beyond the coarse ones a configuration can need."""
        steps, ratio = 0, max(high / low for low, high in zip(self.coarse, self.coarse[1:], strict=False))
        while ratio > self.resolution:
            steps, ratio = steps + 1, math.sqrt(ratio)
        return steps


def expand(points: Sequence[Point], bisection: Bisection, outcomes: Outcomes) -> list[Point]:
    """Returns the points of all values that are known now, and for those that may come next pending ones.

    Args:
      points: those of the grid.
      bisection: the settings.
      outcomes: reads the scores of points.

    Raises:
      UsageError: a point sets what is bisected.
    """
    found = []
    for search in _searches(points, bisection, outcomes):
        found += [point for value in sorted(search.measured) for point in search.measured[value]]
        steps = range(1, search.remaining_steps + 1)
        found += [_pending(point, bisection, number) for number in steps for point in search.points]
    return found


def summary(points: Sequence[Point], bisection: Bisection, outcomes: Outcomes) -> list[str]:
    """Returns a line for each configuration: between which values its runs begin to reach the threshold."""
    lines = []
    for search in _searches(points, bisection, outcomes):
        names = [part for part in search.points[0].names if not part.startswith("seed=")]
        what = f"{'_'.join(names) or 'all'}: {bisection.metric} crosses {bisection.threshold:g}"
        name, bracket = bisection.name.rpartition(".")[2], search.bracket
        if bracket is not None:
            so_far = ", so far" if search.remaining_steps else ""
            lines.append(f"{what} between {name} = {bracket.low:g} and {bracket.high:g}{so_far}")
        elif search.remaining_steps:
            lines.append(f"{what}: not known yet")
        else:
            lines.append(f"{what} nowhere from {name} = {bisection.coarse[0]:g} to {bisection.coarse[-1]:g}")
    return lines


@dataclasses.dataclass
class _Search:
    """How far the bisection of a configuration has come.

    Attributes:
      points: those of the grid.
      measured: the points of each value so far.
      scores: theirs.
      bracket: the closest neighbours so far of which one passes.
      remaining_steps: how many more values there can be.
    """

    points: list[Point]
    remaining_steps: int
    measured: dict[Value, list[Point]] = dataclasses.field(default_factory=dict)
    scores: dict[Value, list[float | None]] = dataclasses.field(default_factory=dict)
    bracket: Bracket | None = None


def _searches(points: Sequence[Point], bisection: Bisection, outcomes: Outcomes) -> list[_Search]:
    """Follows all configurations as far as their runs have ended, one value of each at a time."""
    found: dict[str, _Search] = {}
    for point in points:
        if bisection.name in point.overrides:
            raise UsageError(f"{BISECT}: {bisection.name} is also set by sweep.grids; leave it out of one of them")
        name = derived.configuration(point, [bisection.name])
        found.setdefault(name, _Search([], bisection.most_steps())).points.append(point)
    following = [(search, value) for search in found.values() for value in bisection.coarse]
    while following:
        for search, value in following:
            search.measured[value] = [_at(point, bisection, value) for point in search.points]
        asked = [point for search, value in following for point in search.measured[value]]
        scores = iter(outcomes(asked, bisection.metric))
        for search, value in following:
            search.scores[value] = [next(scores) for _ in search.points]
        following = [(search, value) for search in found.values() if (value := _advance(search, bisection)) is not None]
    return [*found.values()]


def _advance(search: _Search, bisection: Bisection) -> Value | None:
    """Takes new scores into account, and returns the value that comes next; None: none does, or not yet."""
    known = not any(score is None or math.isnan(score) for own in search.scores.values() for score in own)
    bracket = bisection.bracket(search.scores) if known else None
    value = bisection.middle(bracket) if bracket else None
    search.bracket = bracket or search.bracket
    if known:
        search.remaining_steps = 0 if value is None else search.remaining_steps - 1
    return value


def _at(point: Point, bisection: Bisection, value: Value) -> Point:
    return derived.derive(
        point,
        {bisection.name: value},
        {bisection.name: f"{value:g}" if isinstance(value, float) else str(value)},
        stage=selection_rule.BISECT,
        configuration=derived.configuration(point, [bisection.name]),
    )


def _pending(point: Point, bisection: Bisection, number: int) -> Point:
    return derived.derive(
        point,
        {bisection.name: bisection.coarse[0]},
        {bisection.name: f"{PENDING}-{number}"},
        stage=selection_rule.BISECT,
        configuration=derived.configuration(point, [bisection.name]),
        pending={bisection.name: PENDING},
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
