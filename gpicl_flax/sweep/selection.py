"""Selection: a sweep that chooses settings, such as the learning rate, for each of its configurations.

Example::

    sweep.select = {'adam.learning_rate': [3e-4, 1e-3, 3e-3, 1e-2]}

Stage one trains every configuration of the grid with every candidate, on seeds of its own (1000, 1001, ...), and
meta-tests it on validation: unseen tasks with ids of their own, and examples that are held out of the training split.
The test split is not read (see `TaskFamily.validation_share`). Stage two trains each configuration with its best
candidate on the seeds of the grid, and tests it. A configuration is the points of the grid that differ in `Run.seed`
alone. Points of both stages have run ids and folders like any other, and stage two follows from the folders of stage
one alone.

The settings are:
  sweep.select: the candidates, in the form of a grid: bindings with lists, tuples of bindings with lists of tuples, or
    names with labelled sets of bindings. A candidate is one cell of the grid.
  sweep.select_metric: 'accuracy', that at the last position; or 'loss', its mean over the positions.
  sweep.select_seeds: the number of seeds of stage one.
  sweep.select_share: the share of `Training.steps` that stage one trains for. Schedules stay those of the whole run.
  sweep.select_budget: the number of candidates at most; None: any. Of more, so many are drawn at random, the same ones
    for every configuration, as in a randomised search.
  sweep.select_validation_share: the share of the training split that is held out in stage one.

Points with `Training.steps = 0` have nothing to choose, and are in stage two as they are.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from gpicl_flax.bindings import kinds
from gpicl_flax.bindings.kinds import Range
from gpicl_flax.config import Config, short_key
from gpicl_flax.errors import UsageError
from gpicl_flax.records import selection_rule
from gpicl_flax.records.selection_rule import REPORT
from gpicl_flax.records.selection_rule import SELECT as TRIAL
from gpicl_flax.runs.scale import SELECT, fixed_bindings, sweep_setting
from gpicl_flax.sweep import derived
from gpicl_flax.sweep.grid import LABELS, Choice, Point, cells
from gpicl_flax.sweep.outcomes import Outcomes
from gpicl_flax.training.settings import Training

FIRST_SEED = 1000
PENDING = "selected"  # stands for a value that is not known yet

_STEPS, _DISPATCH = "Training.steps", "Training.steps_per_dispatch"
_TASKS, _TEST_DATASETS = "Run.tasks", "MetaTest.base_datasets"


class Candidate(NamedTuple):
    """One candidate.

    Attributes:
      bindings: those that it sets, under gin's names.
      labels: those of its labelled axes.
      values: what it chooses, as text: axes and labels, or bindings and values.
    """

    bindings: dict[str, Any]
    labels: dict[str, str]
    values: dict[str, str]

    @classmethod
    def from_choices(cls, choices: Iterable[Choice]) -> "Candidate":
        """Makes a candidate of a cell of the grid."""
        bindings, labels, values = {}, {}, {}
        for choice in choices:
            own = {short_key(key): value for key, value in choice.bindings.items()}
            bindings |= own
            labels |= choice.labels
            values |= choice.labels or {key: str(value) for key, value in own.items()}
        return cls(bindings, labels, values)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The settings of a selection, see above.

    Attributes:
      candidates: at least two.
      metric: that by which they are compared.
      num_seeds: the seeds of stage one.
      share: that of the steps.
      validation_share: that of the training split.
    """

    candidates: tuple[Candidate, ...]
    metric: str
    num_seeds: int
    share: float
    validation_share: float

    @classmethod
    def from_config(cls, config: Config) -> "Selection | None":
        """Reads the settings of a sweep; None: it chooses nothing.

        Raises:
          UsageError: they have a wrong form, or `sweep.fixed` sets what is to be chosen.
        """
        given = config.bindings.get(SELECT)
        if given is None:
            return None
        if not isinstance(given, dict) or not given:
            raise UsageError(f"{SELECT} must be {{binding: values}}")
        candidates = [Candidate.from_choices(cell) for cell in cells(given, SELECT)]
        budget = sweep_setting(config, "sweep.select_budget")
        if budget is not None:
            kinds.check("sweep.select_budget", budget, Annotated[int, Range(2)])
        if budget is not None and budget < len(candidates):
            drawn = np.random.default_rng(0).choice(len(candidates), budget, replace=False)
            candidates = [candidates[index] for index in sorted(drawn)]
        if len(candidates) < 2:
            raise UsageError(f"{SELECT} has one candidate, so there is nothing to choose; bind it instead")
        found = cls(
            tuple(candidates),
            metric=sweep_setting(config, "sweep.select_metric"),
            num_seeds=sweep_setting(config, "sweep.select_seeds"),
            share=sweep_setting(config, "sweep.select_share"),
            validation_share=sweep_setting(config, "sweep.select_validation_share"),
        )
        undone = sorted(found.names.intersection(short_key(key) for key in fixed_bindings(config)))
        if undone:
            raise UsageError(f"sweep.fixed would undo what {SELECT} chooses ({', '.join(undone)})")
        found._check()
        return found

    def _check(self) -> None:
        if self.metric not in selection_rule.METRICS:
            raise UsageError(
                f"sweep.select_metric must be one of {', '.join(selection_rule.METRICS)}, not {self.metric!r}"
            )
        kinds.check("sweep.select_seeds", self.num_seeds, kinds.Count)
        kinds.check("sweep.select_share", self.share, Annotated[float, Range(0, 1)])
        kinds.check("sweep.select_validation_share", self.validation_share, kinds.Decay)
        for name, share in (("share", self.share), ("validation_share", self.validation_share)):
            if share == 0:
                raise UsageError(f"sweep.select_{name} must be above 0")

    @property
    def names(self) -> set[str]:
        """The bindings that any candidate sets. A labelled one may set others than the next."""
        return {name for candidate in self.candidates for name in candidate.bindings}

    @property
    def axes(self) -> set[str]:
        """The names of the labelled axes."""
        return {*self.candidates[0].labels}

    @property
    def seeds(self) -> range:
        """The seeds of stage one."""
        return range(FIRST_SEED, FIRST_SEED + self.num_seeds)


def expand(points: Sequence[Point], selection: Selection, outcomes: Outcomes) -> list[Point]:
    """Returns the points of both stages: those of stage one, then the points of the grid with what was chosen.

    Args:
      points: those of the grid.
      selection: the settings.
      outcomes: reads the scores of stage one. While some are missing, the points of their configuration are pending:
        they have the values of the first candidate in their configuration, and no digest.

    Raises:
      UsageError: a point sets what is to be chosen, or has a seed of stage one.
    """
    names = [_configuration(point, selection) for point in points]
    trials: dict[str, list[Point]] = {}
    for point, name in zip(points, names, strict=True):
        if name and name not in trials:
            trials[name] = _trials(name, point, selection)
    scores = iter(outcomes(list(itertools.chain.from_iterable(trials.values())), selection.metric))
    chosen = {name: _choose([next(scores) for _ in own], selection) for name, own in trials.items()}
    reported = [
        _reported(point, name, chosen[name], selection) if name else point
        for point, name in zip(points, names, strict=True)
    ]
    return [*itertools.chain.from_iterable(trials.values()), *reported]


def _configuration(point: Point, selection: Selection) -> str:
    """Returns the identity of a point's configuration; '' for one that does not train, and has nothing to choose.

    Raises:
      UsageError: it sets what is to be chosen, or has a seed of stage one.
    """
    twice = sorted(selection.names & {*point.overrides})
    twice += sorted(selection.axes & {*point.overrides.get(LABELS, {})})
    if twice:
        raise UsageError(f"{SELECT}: {twice[0]} is also set by sweep.grids; leave it out of one of them")
    if derived.binding(point.config, derived.SEED, 0) in selection.seeds:
        raise UsageError(
            f"{point.run_id}: the seeds {selection.seeds[0]} to {selection.seeds[-1]} are those by which settings are "
            "chosen; give Run.seed others"
        )
    if any(short_key(key).endswith(".validation_share") for key in point.config.bindings):
        raise UsageError(f"{SELECT} sets the validation share itself; set sweep.select_validation_share instead")
    trains = derived.binding(point.config, _STEPS, Training.steps) != 0
    return derived.configuration(point, selection.names) if trains else ""


def _trials(name: str, point: Point, selection: Selection) -> list[Point]:
    """Returns the points of stage one of a configuration, for each candidate one for each seed."""
    shared: dict[str, Any] = {f"{_family(point.config)}.validation_share": selection.validation_share}
    if selection.share < 1:
        shared[_STEPS] = _shortened(point.config, selection.share)
    base = derived.without(point.config, {_TEST_DATASETS})  # it is tested on its own data alone
    overrides = {key: value for key, value in point.overrides.items() if key != _TEST_DATASETS}
    first = dataclasses.replace(point, names=(TRIAL, *point.names), overrides=overrides)
    return [
        derived.derive(
            first,
            {**shared, derived.SEED: seed, **candidate.bindings, **derived.labelled(point, candidate.labels)},
            candidate.values,
            stage=TRIAL,
            configuration=name,
            base=base,
            record=_record(TRIAL, name, candidate, selection),
        )
        for candidate in selection.candidates
        for seed in selection.seeds
    ]


def _choose(scores: Sequence[float | None], selection: Selection) -> Candidate | None:
    """Returns the best candidate; None while runs have not ended, or if none can be chosen."""
    known = [score for score in scores if score is not None and not math.isnan(score)]  # NaN: its files are damaged
    if len(known) < len(scores):
        return None
    size = selection.num_seeds
    index = selection_rule.best([known[start : start + size] for start in range(0, len(known), size)])
    return None if index is None else selection.candidates[index]


def _reported(point: Point, name: str, chosen: Candidate | None, selection: Selection) -> Point:
    """Returns a point of the grid with the chosen candidate, or pending."""
    candidate = chosen or selection.candidates[0]
    return derived.derive(
        point,
        {**candidate.bindings, **derived.labelled(point, candidate.labels)},
        candidate.values if chosen else dict.fromkeys(candidate.values, PENDING),
        stage=REPORT,
        configuration=name,
        record=_record(REPORT, name, candidate, selection),
        pending=None if chosen else _unknown(point, selection),
    )


def _unknown(point: Point, selection: Selection) -> dict[str, Any]:
    """Returns what lists show in the place of values that are not chosen yet."""
    return dict.fromkeys(selection.names, PENDING) | derived.labelled(point, dict.fromkeys(selection.axes, PENDING))


def _record(stage: str, configuration: str, candidate: Candidate, selection: Selection) -> dict[str, Any]:
    """Returns the binding that a report reads in run.json."""
    values = {"values": candidate.values, "metric": selection.metric}
    return {"Run.selection": {"stage": stage, "configuration": configuration, **values}}


def _shortened(config: Config, share: float) -> int:
    """Returns a share of the steps, as whole dispatches."""
    dispatch = derived.binding(config, _DISPATCH, Training.steps_per_dispatch)
    return max(1, round(share * derived.binding(config, _STEPS, Training.steps) / dispatch)) * dispatch


def _family(config: Config) -> str:
    """Returns the name of the task family as gin files write it."""
    reference = str(derived.binding(config, _TASKS, "@TaskDistribution()"))
    return reference.removeprefix("@").removesuffix("()").rpartition("/")[2]
