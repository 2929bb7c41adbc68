"""Expands a grid in gin into the points of a sweep.

Example::

    sweep.grids = [
        {'Run.model': @LSTM(), 'LSTM.hidden_size': [16, 64], 'Run.seed': [0, 1]},
        {'Run.model': @Transformer(), ('Transformer.num_layers', 'Transformer.model_size'): [(2, 64), (4, 256)]},
        {'tokens': {'shifted': {}, 'aligned': {'Transformer.token_layout': 'aligned'}}},
    ]

The sweep is the union of its grids, and a grid is the product of its axes. An axis is a binding with a list of values.
A value that is not a list is fixed. A tuple of bindings with a list of tuples zips them: they vary together. A name
with a dict chooses between sets of bindings. Each set has a label, which the run keeps (`Run.labels`).

The run id of a point names what varies: the labels, the model, and the axes that are given as lists. A list with a
single value counts as well, so that an id stays the same when the list grows; a value outside a list does not. The
digest at the end of its id identifies a point (see `runs.identity`).

`sweep.fixed`, a dict of bindings, overrides the grids: points that differ in nothing else become one. That is how a
file of gin/scale/ shrinks any sweep; a file without grids uses it as plain bindings. An experiment can define a
different way to shrink: if `sweep.scale` is 'cpu' and `sweep.scales` has grids under that name, these replace
`sweep.grids`, and nothing is fixed. A scale with neither is an error, because nothing would be shrunk.
`sweep.images_only` repeats the bindings of such a file that only tasks made from a base dataset have. They are left out
where `Run.tasks` are others.

A sweep may have more stages than this grid, see `sweep.stages`.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gpicl_flax.runs.run  # noqa: F401 - registers configurables in gin; digests need their full names
from gpicl_flax.config import Config, differences, short_key
from gpicl_flax.errors import UsageError
from gpicl_flax.records.selection_rule import BISECT, REPORT, SELECT
from gpicl_flax.runs.identity import digest
from gpicl_flax.runs.scale import ALL, FIXED, GRIDS, SCALES, are_bindings, fixed_bindings, scaled_grids, without_sweep
from gpicl_flax.sweep import legacy_ids, run_ids

LABELS = "Run.labels"
STAGES_IN_WORDS = {SELECT: "to choose settings", REPORT: "with what was chosen", BISECT: "to find a threshold"}
_MODEL = "Run.model"


@dataclasses.dataclass(frozen=True)
class Point:
    """One cell of a sweep.

    Attributes:
      run_id: readable parts for what varies in the sweep, as many as fit, and the digest.
      overrides: the bindings that the grid sets.
      config: the whole configuration.
      names: all readable parts of the run id.
      digest: the identity of the point, made from its configuration. It depends on this point alone, so it stays the
        same when the grid grows or names its axes differently. The readable parts may change then.
      legacy_ids: the run ids that version 0.1 gave to the point.
      stage: the stage of the sweep that trains it (see `sweep.stages`), '' where there is only one.
      configuration: the identity that the points of all stages share which depend on each other; '' where there is only
        one stage.
    """

    run_id: str
    overrides: dict[str, Any]
    config: Config
    names: tuple[str, ...] = ()
    digest: str = ""
    legacy_ids: tuple[str, ...] = ()
    stage: str = ""
    configuration: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether it depends on points that have not ended, so that its values, and its digest, are not known yet."""
        return not self.digest

    @property
    def unit(self) -> str:
        """The name of what shares of a sweep do not divide: points that depend on each other, or this point."""
        return self.configuration or self.digest


class Choice(NamedTuple):
    """One value of an axis.

    Attributes:
      bindings: those that it sets.
      labels: the axis and the label, for an axis of labels; otherwise empty.
      varies: whether the axis is given as a list.
    """

    bindings: dict[str, Any]
    labels: dict[str, str]
    varies: bool = False


def points(config: Config) -> list[Point]:
    """Returns the points of the sweep that `config` describes, in the order of its grids.

    Raises:
      UsageError: there is no grid, it has a wrong form, or two points are the same.
    """
    grids, fixed = scaled_grids(config), fixed_bindings(config)
    grids = config.bindings.get(GRIDS) if grids is None else grids
    if not isinstance(grids, list | tuple) or not grids or not all(isinstance(g, dict) and g for g in grids):
        raise UsageError(f"no sweep: {GRIDS} must be a list of {{binding: values}}, one dict a grid")
    found_cells = []
    for choices in itertools.chain.from_iterable(map(cells, grids)):
        for choice in choices:
            undone = _common(choice.bindings, fixed)
            if choice.labels and undone:
                raise UsageError(
                    f"{FIXED} would undo what {' '.join(choice.labels.values())!r} stands for "
                    f"({', '.join(undone)}); give the sweep grids of this scale ({SCALES})"
                )
        overrides = _overrides(choices, fixed)
        found_cells.append((choices, overrides, without_sweep(config, overrides)))
    several_models = len({repr(cell.bindings.get(_MODEL)) for _, _, cell in found_cells}) > 1
    found: dict[str, Point] = {}
    for choices, overrides, whole in found_cells:
        names = _names(choices, whole, fixed, several_models)
        identity = digest(whole)
        legacy_id = _legacy_id(choices, config, fixed)
        point = Point(run_ids.join(names, identity), overrides, whole, names, identity, (legacy_id,))
        if identity in found:
            point = _merged(found[identity], point, merge=bool(fixed))
        found[identity] = point
    return list(found.values())


def cells(grid: Mapping[Any, Any], name: str = GRIDS) -> Iterator[tuple[Choice, ...]]:
    """Yields the cells of a grid: a choice for each of its axes. Messages call the grid `name`."""
    for cell in itertools.product(*(_axis(keys, values, name) for keys, values in grid.items())):
        keys = [short_key(key) for choice in cell for key in choice.bindings]
        if len(set(keys)) < len(keys):
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise UsageError(f"{name}: a grid sets {', '.join(twice)} twice")
        yield cell


def _axis(keys: str | tuple[str, ...], values: Any, name: str) -> list[Choice]:
    """Returns the choices of one axis."""
    if not isinstance(values, dict):
        return [Choice(bindings, {}, isinstance(values, list)) for bindings in _bound(keys, values, name)]
    if not isinstance(keys, str) or "." in keys:
        raise UsageError(
            f"{name}: {keys!r} has a dict, so it must be a name without a dot, with labels as the dict's keys"
        )
    if not values or not all(isinstance(k, str) and are_bindings(v) for k, v in values.items()):
        raise UsageError(f"{name}: {keys!r} must be {{label: {{binding: value}}}}")
    return [Choice(dict(bindings), {keys: label}) for label, bindings in values.items()]


def _bound(keys: str | tuple[str, ...], values: Any, name: str) -> list[dict[str, Any]]:
    """Returns the bindings that an axis of values chooses from."""
    names = keys if isinstance(keys, tuple) else (keys,)
    if not names or not all(isinstance(key, str) and "." in key for key in names):
        raise UsageError(f"{name}: {keys!r} is no binding, nor a tuple of bindings")
    values = values if isinstance(values, list) else [values]
    if not values:
        raise UsageError(f"{name}: {keys!r} has no values")
    if isinstance(keys, str):
        return [{keys: value} for value in values]
    if not all(isinstance(value, tuple) and len(value) == len(keys) for value in values):
        raise UsageError(f"{name}: the values of {keys!r} must be tuples of {len(keys)}")
    return [dict(zip(keys, value, strict=True)) for value in values]


def _common(bindings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Returns the names in `bindings` that `others` also sets, however it spells them."""
    short = {short_key(key) for key in others}
    return sorted(key for key in bindings if short_key(key) in short)


def _overrides(choices: Sequence[Choice], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the bindings that a cell sets, with the fixed values where there are any, and its labels."""
    values = {short_key(key): value for key, value in fixed.items()}
    overrides, labels = {}, {}
    for choice in choices:
        for key, value in choice.bindings.items():
            overrides[short_key(key)] = values.get(short_key(key), value)
        labels |= choice.labels
    return overrides | ({LABELS: labels} if labels else {})


def _names(
    choices: Sequence[Choice], config: Config, fixed: Mapping[str, Any], several_models: bool
) -> tuple[str, ...]:
    """Returns the readable parts of a run id.

    These are the labels, which replace their bindings, the model, and the other values that vary.
    """
    labels = [run_ids.part(*pair) for choice in choices for pair in choice.labels.items()]
    chosen = [label for choice in choices for label in choice.labels.values()]
    values, model = [], several_models
    for choice in choices:
        if choice.labels:
            continue
        fixed_here = _common(choice.bindings, fixed)
        for key, value in choice.bindings.items():
            if key in fixed_here:
                continue
            if short_key(key) == _MODEL:
                model = True
            elif choice.varies:
                values.append(run_ids.part(key.rpartition(".")[2], value))
    models = [run_ids.model_part(config.bindings[_MODEL])] if model and _MODEL in config.bindings else []
    return (*labels, *(name for name in models if name not in chosen), *values)


def _legacy_id(choices: Sequence[Choice], config: Config, fixed: Mapping[str, Any]) -> str:
    """Returns the run id that version 0.1 gave to a cell of the sweep that `config` describes."""
    choices = [choice._replace(bindings={k: fixed.get(k, v) for k, v in choice.bindings.items()}) for choice in choices]
    bindings = {**config.without(*ALL).bindings, **fixed}
    for choice in choices:
        bindings |= choice.bindings
    labels = {axis: label for choice in choices for axis, label in choice.labels.items()}
    if labels:
        bindings[LABELS] = labels
    ordered = sorted(choices, key=lambda choice: not choice.labels)
    values = [pair for choice in ordered for pair in (choice.labels or choice.bindings).items()]
    return legacy_ids.run_id(values, bindings, config.imports)


def _merged(one: Point, other: Point, *, merge: bool) -> Point:
    """Merges two points of one digest if the fixed bindings made them equal; raises UsageError otherwise."""
    changed = differences(one.config, other.config)
    if merge and not changed:
        return dataclasses.replace(other, legacy_ids=tuple(dict.fromkeys((*one.legacy_ids, *other.legacy_ids))))
    both = one.run_id if one.run_id == other.run_id else f"{one.run_id} and {other.run_id}"
    keys = ", ".join(text.partition(" is ")[0] for text in changed)
    why = f"; {keys} cannot change results" if changed else ""
    raise UsageError(f"{GRIDS}: two points are the same: {both}{why}")
