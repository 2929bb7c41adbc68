"""Makes the rule of a plateau-aware stop from the ended runs that are like a run: the gin parameter sweep.plateau_stop.

The paper does not use it. `records.plateau_rule` is the rule, `training.plateau_stop` what a run decides by it.
"""

import dataclasses
import fnmatch
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from gpicl_flax.bindings.kinds import Count, CountOrZero, Range, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.records import matching_scores
from gpicl_flax.records.lengths import Lengths, kaplan_meier
from gpicl_flax.records.matching_scores import Growth
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.training import plateau_stop

_NAME = "sweep.plateau_stop"
_NOTES = ("Run.labels", "Run.selection")
_UNSEEN_EVENT = 0.5  # runs beyond those observed: the prior of Jeffreys (1946) for a share


@dataclasses.dataclass(frozen=True)
class PlateauStop:
    """When runs of a sweep end before their last step because they will not leave their plateau.

    A run ends after a row with diagnostics if all of this holds:

    - It has left its plateau neither by its training loss nor by its loss on unseen tasks.
    - Its matching score, at the fastest growth that its last diagnoses allow (two standard errors above the fitted
      one), and at no less than the median growth of its like, does not reach the lowest score at which its like left.
    - Of runs like it that were on their plateau at that step and of whose score the same could be said, a share below
      1 - `confidence` left within its steps, by Kaplan-Meier, with half a run more that leaves than was observed.
    - Growth foretells leaving: of runs like it that left, a share below 1 - `confidence`, with half a run more, could
      not have reached that score in twice the steps since their last diagnosis before. Where scores jump, or have
      nothing to do with the loss, no run is ended.

    So a run without a matching score never ends early, and neither does one with too few like runs. A run is like
    another if both have the same bindings but for those in `differ_in`, therefore the same model and task family.

    Attributes:
      confidence: see above.
      min_runs: the fewest like runs that have ended, each by its last step or by diverging.
      min_left: how many of them at least have left their plateau.
      from_step: the first step after which a run may end.
      differ_in: patterns of names of bindings that may differ between like runs, such as '*.learning_rate'. Nothing
        that changes the length of the plateau should be among them.

    Raises:
      UsageError: a value is out of its range.
    """

    confidence: Annotated[float, Range(0, 1, is_open=True)] = 0.9
    min_runs: Count = 5
    min_left: Count = 2
    from_step: CountOrZero = 0
    differ_in: Sequence[str] = ("Run.seed",)

    def __post_init__(self):
        check_settings(self, _NAME)

    @classmethod
    def from_gin(cls, values: Any) -> "PlateauStop | None":
        """Returns the settings of a dict, {} for the defaults; None: off. Raises UsageError if it is no such dict."""
        if values is None:
            return None
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, dict) or not set(values) <= set(known):
            raise UsageError(f"{_NAME} must be None or a dict with some of {', '.join(known)}, not {values!r}")
        return cls(**values)

    def likeness(self, bindings: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """Returns what like runs have in common, given the bindings of a run, without those that change nothing."""
        return frozenset(
            (name, str(value))
            for name, value in bindings.items()
            if name not in _NOTES and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.differ_in)
        )


class EndedRun(NamedTuple):
    """The plateau of a run that has ended.

    Attributes:
      step: the step at which it left its plateau, or its last one.
      left: whether it left.
      score: the matching score at that step, if it left and has one.
      growths: the growth of its score at the steps at which it was on its plateau and diagnosed.
    """

    step: int
    left: bool
    score: float | None = None
    growths: Mapping[int, Growth] = {}

    @property
    def fastest(self) -> float | None:
        """The fastest growth of the logarithm of its score until it left, per step."""
        return max((growth.rate for growth in self.growths.values()), default=None)


def ended_run(rows: Iterable[Mapping[str, Any]], tracker: PlateauTracker) -> EndedRun | None:
    """Returns the plateau of a run, given the rows of its log in their order, and its tracker before the first.

    None: there is no row.
    """
    scores, growths, step = [], {}, None
    for row in rows:
        step, diagnostics = row["step"], row.get("diagnostics")
        tracker.follow(step, row["loss_ema"], diagnostics)
        scores = plateau_stop.with_score(scores, step, diagnostics)
        if not plateau_stop.on_plateau(tracker):
            return EndedRun(step, True, scores[-1][1] if scores else None, growths)
        growth = matching_scores.growth(scores) if diagnostics else None
        growths |= {} if growth is None else {step: growth}
    return None if step is None else EndedRun(step, False, None, growths)


def make_rule(settings: PlateauStop, like: Sequence[EndedRun], steps: int) -> PlateauRule:
    """Makes the rule of a run of `steps` steps from the ended runs that are like it."""
    left = [run for run in like if run.left]
    stayed = sum(_stays(run, steps) for run in like)
    scores = [run.score for run in left if run.score is not None]
    growths = [run.fastest for run in left if run.fastest is not None]
    rule = PlateauRule(
        settings.confidence,
        settings.from_step,
        len(like),
        len(left),
        stayed,
        score=min(scores, default=None),
        growth=max(statistics.median(growths), 0.0) if growths else None,
    )
    last = [(run.step, *_last_growth(run)) for run in left]
    foreseen = [rule.grows_in_time(growth, 2 * (end - step)) for end, step, growth in last if growth]
    rule = dataclasses.replace(rule, missed=foreseen.count(False))
    missed = (rule.missed + _UNSEEN_EVENT) / (len(foreseen) + 1)
    few = len(like) < settings.min_runs or len(left) < settings.min_left
    if few or rule.score is None or missed >= 1 - settings.confidence:
        return rule
    at = sorted({step for run in like for step in run.growths if step < steps})
    chances = []
    for step in at:
        alike = [run for run in like if step in run.growths]
        alike = [run for run in alike if not rule.grows_in_time(run.growths[step], steps - step)]
        chances.append(_leave_probability(alike, steps, 1 - settings.confidence))
    return dataclasses.replace(rule, steps=tuple(at), leave_probability=tuple(chances))


def _last_growth(run: EndedRun) -> tuple[int, Growth | None]:
    """Returns the last step at which a run was on its plateau and diagnosed, and the growth of its score there."""
    return max(run.growths.items(), default=(0, None), key=lambda item: item[0])


def _stays(run: EndedRun, steps: int) -> bool:
    return not run.left and run.step >= steps


def _leave_probability(alike: Sequence[EndedRun], steps: int, needed: float) -> float:
    """Returns the probability that one more run like these leaves within `steps`; 1 if it is not below `needed`."""
    unseen = _UNSEEN_EVENT / (sum(_stays(run, steps) for run in alike) + 1)
    if unseen >= needed:  # where no run stays for so long, nothing is known of the end
        return 1.0
    lengths = Lengths(np.array([run.step for run in alike], float), np.array([run.left for run in alike]))
    probability = 1 - float(kaplan_meier(lengths).evaluate(float(steps))) * (1 - unseen)
    return probability if probability < needed else 1.0
