"""The rule by which a sweep ends a run that stays on its plateau: data, saved in the run folder as early_stop.json.

A sweep makes the rule when it first starts the run, from the runs that had ended by then and are like it (see
`runs.plateau_stop`). The rule is read again whenever the run is resumed, and never made again: so where a run ends
depends on nothing but this file and its own log (see `training.plateau_stop`).
"""

import bisect
import dataclasses
from typing import Annotated, Any, TypedDict

import msgspec

from gpicl_flax.records.matching_scores import Growth
from gpicl_flax.records.run_folder import RunFolder, as_json, read_json
from gpicl_flax.records.schemas import Count, Schema

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PlateauRuleFile(TypedDict):
    """early_stop.json, see `PlateauRule`."""

    confidence: Share
    from_step: Count
    like: Count
    left: Count
    stayed: Count
    missed: Count
    steps: list[Count]
    leave_probability: list[Share]
    score: Annotated[float, msgspec.Meta(ge=0)] | None
    growth: Annotated[float, msgspec.Meta(ge=0)] | None


@dataclasses.dataclass(frozen=True)
class PlateauRule:
    """When a run that is still on its plateau ends; all plain JSON.

    Attributes:
      confidence: the run may end where its probability to leave within its steps is less than 1 - confidence.
      from_step: the first step after which it may end.
      like: the number of runs that the rule is made from.
      left: how many of them left their plateau.
      stayed: how many of them were on it after as many steps as this run has.
      missed: how many of those that left did so although the growth of their matching score had not foretold it.
      score: the lowest matching score at which a like run left its plateau. None, as where models have no queries and
        keys: the rule never ends the run.
      growth: the fastest growth of the logarithm of that score, per step: the median over the runs that left.
      steps: [m], ascending, those at which like runs were diagnosed. Empty: the like runs say too little, and the rule
        never ends the run.
      leave_probability: [m], the probability that a run which is on its plateau from that step until the next, and
        whose score will not grow to `score` in time, leaves it within the steps of this run.
    """

    confidence: float
    from_step: int
    like: int
    left: int
    stayed: int
    missed: int = 0
    score: float | None = None
    growth: float | None = None
    steps: tuple[int, ...] = ()
    leave_probability: tuple[float, ...] = ()

    def probability(self, step: int) -> float:
        """Returns the probability at a step; it is 1 where nothing is known."""
        place = bisect.bisect_right(self.steps, step)
        return self.leave_probability[place - 1] if place else 1.0

    def grows_in_time(self, growth: Growth, remaining: int) -> bool:
        """Returns whether a score may grow to `score` within the remaining steps."""
        return self.score is None or growth.after(remaining, self.growth or 0.0) >= self.score

    @property
    def text(self) -> str:
        """The text of early_stop.json."""
        return as_json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PlateauRule":
        """Reads what `dataclasses.asdict` makes of a rule, which may hold more than this version knows."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        for name in ("steps", "leave_probability"):
            known[name] = tuple(known[name])
        return cls(**known)


def _uneven(file: PlateauRuleFile) -> str:
    """Returns a fault where the table has no form of one."""
    steps = file["steps"]
    if len(steps) != len(file["leave_probability"]):
        return "`steps` and `leave_probability` differ in length"
    return "" if steps == sorted(set(steps)) else "`steps` do not ascend"


SCHEMA = Schema(
    PlateauRuleFile, "restore it from a copy, or delete it: without it the run makes all its steps", _uneven
)


def read(folder: RunFolder) -> PlateauRule | None:
    """Returns the rule of a run, or None if it has none; raises Damaged if it cannot be read."""
    if folder.early_stop.name not in folder.names():
        return None
    return PlateauRule.from_json(read_json(folder.early_stop, SCHEMA))


def begun(folder: RunFolder) -> bool:
    """Returns whether a run was begun, with or without a rule: then none is made for it any more."""
    return not {folder.early_stop.name, folder.config.name}.isdisjoint(folder.names())
