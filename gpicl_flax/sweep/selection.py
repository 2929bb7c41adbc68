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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpicl_flax.config import Config, short_key
from gpicl_flax.errors import UsageError
from gpicl_flax.records import selection_rule
from gpicl_flax.records.selection_rule import REPORT
from gpicl_flax.records.selection_rule import SELECT as TRIAL
from gpicl_flax.runs.identity import digest
from gpicl_flax.runs.scale import SELECT, fixed_bindings, sweep_setting
from gpicl_flax.sweep import run_ids
from gpicl_flax.sweep.grid import LABELS, Choice, Point, cells
from gpicl_flax.sweep.outcomes import Outcomes
from gpicl_flax.training.settings import Training

FIRST_SEED = 1000
PENDING = "selected"  # stands for a value that is not known yet

_SEED, _STEPS, _DISPATCH, _TASKS = "Run.seed", "Training.steps", "Training.steps_per_dispatch", "Run.tasks"
_TEST_DATASETS = "MetaTest.base_datasets"


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
        if budget is not None and (not _is_whole(budget) or budget < 2):
            raise UsageError(f"sweep.select_budget must be an integer of at least 2, or None, not {budget!r}")
        if budget is not None and budget < len(candidates):
            drawn = np.random.default_rng(0).choice(len(candidates), budget, replace=False)
            candidates = [candidates[index] for index in sorted(drawn)]
        if len(candidates) < 2:
            raise UsageError(f"{SELECT} has one candidate, so there is nothing to choose; bind it instead")
        fixed = {short_key(key) for key in fixed_bindings(config)}
        undone = sorted(fixed.intersection(*[candidate.bindings for candidate in candidates[:1]]))
        if undone:
            raise UsageError(f"sweep.fixed would undo what {SELECT} chooses ({', '.join(undone)})")
        found = cls(
            tuple(candidates),
            metric=sweep_setting(config, "sweep.select_metric") or selection_rule.ACCURACY,
            num_seeds=sweep_setting(config, "sweep.select_seeds"),
            share=sweep_setting(config, "sweep.select_share"),
            validation_share=sweep_setting(config, "sweep.select_validation_share"),
        )
        found._check()
        return found

    def _check(self) -> None:
        if self.metric not in selection_rule.METRICS:
            raise UsageError(
                f"sweep.select_metric must be one of {', '.join(selection_rule.METRICS)}, not {self.metric!r}"
            )
        if not _is_whole(self.num_seeds) or self.num_seeds < 1:
            raise UsageError(f"sweep.select_seeds must be a positive integer, not {self.num_seeds!r}")
        if not _is_number(self.share) or not 0 < self.share <= 1:
            raise UsageError(f"sweep.select_share must be in (0, 1], not {self.share!r}")
        if not _is_number(self.validation_share) or not 0 < self.validation_share < 1:
            raise UsageError(f"sweep.select_validation_share must be in (0, 1), not {self.validation_share!r}")

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
    by_configuration: dict[str, list[Point]] = {}
    for point in points:
        _check_point(point, selection)
        if _trains(point):
            by_configuration.setdefault(_identity(point, selection), []).append(point)
    trials = {name: _trials(name, own[0], selection) for name, own in by_configuration.items()}
    scores = iter(outcomes(list(itertools.chain.from_iterable(trials.values())), selection.metric))
    chosen = {name: _choose([next(scores) for _ in own], selection) for name, own in trials.items()}
    reported = []
    for point in points:
        name = _identity(point, selection)
        trained = _trains(point)
        reported.append(_reported(point, name, chosen[name], selection) if trained else point)
    return [*itertools.chain.from_iterable(trials.values()), *reported]


def _check_point(point: Point, selection: Selection) -> None:
    first = selection.candidates[0]
    labels = point.overrides.get(LABELS, {})
    twice = sorted({*first.bindings} & {*point.overrides}) + sorted({*first.labels} & {*labels})
    if twice:
        raise UsageError(f"{SELECT}: {twice[0]} is also set by sweep.grids; leave it out of one of them")
    if _binding(point.config, _SEED, 0) in selection.seeds:
        raise UsageError(
            f"{point.run_id}: the seeds {selection.seeds[0]} to {selection.seeds[-1]} are those by which settings are "
            "chosen; give Run.seed others"
        )
    if any(short_key(key).endswith(".validation_share") for key in point.config.bindings):
        raise UsageError(f"{SELECT} sets the validation share itself; set sweep.select_validation_share instead")


def _identity(point: Point, selection: Selection) -> str:
    """Returns what the points of a configuration share: the digest of their settings without seed and candidates."""
    return digest(_without(point.config, {_SEED, *selection.candidates[0].bindings}))


def _trials(name: str, point: Point, selection: Selection) -> list[Point]:
    """Returns the points of stage one of a configuration, for each candidate one for each seed."""
    bindings: dict[str, Any] = {f"{_family(point.config)}.validation_share": selection.validation_share}
    if selection.share < 1:
        bindings[_STEPS] = _shortened(point.config, selection.share)
    config = _without(point.config, {_TEST_DATASETS}).override(bindings)  # its own data alone
    found = []
    for candidate in selection.candidates:
        for seed in selection.seeds:
            own = {_SEED: seed, **candidate.bindings, **_labels(point, candidate)}
            whole = config.override(own | {"Run.selection": _record(TRIAL, name, candidate, selection)})
            names = (TRIAL, *_names(point, candidate.values), run_ids.part("seed", seed))
            overrides = {**point.overrides, **bindings, **own}
            found.append(_point(names, overrides, whole, TRIAL, name))
    return found


def _choose(scores: Sequence[float | None], selection: Selection) -> Candidate | None:
    """Returns the best candidate; None while runs have not ended, or if none can be chosen."""
    known = [score for score in scores if score is not None and score == score]  # NaN: its files are damaged
    if len(known) < len(scores):
        return None
    size = selection.num_seeds
    index = selection_rule.best([known[start : start + size] for start in range(0, len(known), size)])
    return None if index is None else selection.candidates[index]


def _reported(point: Point, name: str, chosen: Candidate | None, selection: Selection) -> Point:
    """Returns a point of the grid with the chosen candidate, or pending."""
    candidate = chosen or selection.candidates[0]
    own = {**candidate.bindings, **_labels(point, candidate)}
    config = point.config.override(own | {"Run.selection": _record(REPORT, name, candidate, selection)})
    values = candidate.values if chosen else dict.fromkeys(candidate.values, PENDING)
    seed = [run_ids.part("seed", _binding(point.config, _SEED, 0))]
    names = (*_names(point, values), *(part for part in point.names if part in seed))
    overrides = {**point.overrides, **(own if chosen else dict.fromkeys(candidate.bindings, PENDING))}
    found = _point(names, overrides, config, REPORT, name)
    return found if chosen else dataclasses.replace(found, run_id="_".join(names), digest="")


def _point(names: tuple[str, ...], overrides: dict[str, Any], config: Config, stage: str, configuration: str) -> Point:
    identity = digest(config)
    run_id = run_ids.join(names, identity)
    return Point(run_id, overrides, config, names, identity, stage=stage, configuration=configuration)


def _names(point: Point, values: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the readable parts of a run id without the seed: those of the point, and those of a candidate."""
    seed = run_ids.part("seed", _binding(point.config, _SEED, 0))
    own = (run_ids.part(key.rpartition(".")[2], value) for key, value in values.items())
    return (*(part for part in point.names if part != seed), *own)


def _labels(point: Point, candidate: Candidate) -> dict[str, Any]:
    """Returns the binding of a point's labels with those of a candidate, where it has any."""
    return {LABELS: {**point.overrides.get(LABELS, {}), **candidate.labels}} if candidate.labels else {}


def _record(stage: str, configuration: str, candidate: Candidate, selection: Selection) -> dict[str, Any]:
    """Returns the value of `Run.selection`, which a report reads in run.json."""
    values = {"values": candidate.values, "metric": selection.metric}
    return {"stage": stage, "configuration": configuration, **values}


def _trains(point: Point) -> bool:
    return _binding(point.config, _STEPS, Training.steps) != 0


def _shortened(config: Config, share: float) -> int:
    """Returns a share of the steps, as whole dispatches."""
    dispatch = _binding(config, _DISPATCH, Training.steps_per_dispatch)
    return max(1, round(share * _binding(config, _STEPS, Training.steps) / dispatch)) * dispatch


def _family(config: Config) -> str:
    """Returns the name of the task family as gin files write it."""
    reference = str(_binding(config, _TASKS, "@TaskDistribution()"))
    return reference.removeprefix("@").removesuffix("()").rpartition("/")[2]


def _binding(config: Config, name: str, default: Any) -> Any:
    return next((value for key, value in config.bindings.items() if short_key(key) == name), default)


def _without(config: Config, names: set[str]) -> Config:
    """Returns a configuration without some bindings, however it spells their names."""
    return config.without(*(key for key in config.bindings if short_key(key) in names))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
