"""From a grid in gin to the points of a sweep.

    sweep.grids = [
        {'Run.model': @LSTM(), 'LSTM.hidden_size': [16, 64], 'Run.seed': [0, 1]},
        {'Run.model': @Transformer(), ('Transformer.num_layers', 'Transformer.model_size'): [(2, 64), (4, 256)]},
        {'tokens': {'shifted': {}, 'aligned': {'Transformer.token_layout': 'aligned'}}},
    ]

The sweep is the union of its grids, a grid the product of its axes. An axis is a binding with a list of values; what
is not a list is one fixed value. A tuple of bindings with a list of tuples zips them: they vary together. A name with a
dict chooses between sets of bindings, each with a label, which the run keeps (`Run.labels`).

`sweep.fixed`, a dict, wins over the grids: points that differ in nothing else become one. A value there takes the place
of the binding's values in the grids, and is set where no grid has it; a list is the axis's new values; the name of an axis
of labels with a label, or a list of them, keeps these. That is how a file of gin/scale/ shrinks any sweep; a file without
grids takes it as plain bindings. An experiment that wants to be shrunk otherwise says so: where `sweep.scale` is 'cpu',
`sweep.scales['cpu']`, if there is one, takes the place of `sweep.fixed`.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin

from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError

GRIDS = "sweep.grids"
FIXED = "sweep.fixed"
SCALE = "sweep.scale"
SCALES = "sweep.scales"
LABELS = "Run.labels"


@gin.configurable
def sweep(
    grids: Sequence[Mapping[Any, Any]] = (),
    fixed: Mapping[str, Any] | None = None,
    scale: str | None = None,
    scales: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Gives gin the names `sweep.grids` and so on; their values are read as they are written, in `points`."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One cell of a sweep.

    Attributes:
      run_id: the values and labels that vary, readable, and a hash of all bindings. It depends on this point alone, and so
        stays the same when the grid grows.
      overrides: the bindings that the grid sets.
      config: the whole configuration.
    """

    run_id: str
    overrides: dict[str, Any]
    config: Config


class _Choice(NamedTuple):
    """One value of an axis: its bindings, and its part of the run id."""

    bindings: dict[str, Any]
    labels: dict[str, str]


def points(config: Config) -> list[Point]:
    """The points of the sweep that `config` describes, in the order of its grids.

    Raises:
      UsageError: there is no grid, it has a wrong form, or two points are the same.
    """
    grids = config.bindings.get(GRIDS)
    if not isinstance(grids, list | tuple) or not grids or not all(isinstance(g, dict) and g for g in grids):
        raise UsageError(f"no sweep: {GRIDS} must be a list of {{binding: values}}, one dict a grid")
    base, fixed = without_sweep(config), _fixed(config)
    names = {key for grid in grids for key, values in grid.items() if isinstance(values, dict)}
    unknown = {key for key in fixed if "." not in key} - names
    if unknown:
        raise UsageError(f"{FIXED}: no grid has an axis of labels named {', '.join(sorted(unknown))}")
    found = {}
    for choices in itertools.chain.from_iterable(_product(grid, fixed) for grid in grids):
        overrides = {key: value for choice in choices for key, value in choice.bindings.items()}
        labels = {name: label for choice in choices for name, label in choice.labels.items()}
        if labels:
            overrides[LABELS] = labels
        point_config = base.override(overrides)
        point = Point(_run_id(choices, point_config), overrides, point_config)
        if point.run_id in found and not fixed:
            raise UsageError(f"{GRIDS}: two points are the same: {point.run_id}")
        found[point.run_id] = point
    return list(found.values())


def without_sweep(config: Config) -> Config:
    """The configuration of a single run: less the grids, and with the fixed bindings in their place.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings.
    """
    plain = {key: value for key, value in _fixed(config).items() if "." in key and not isinstance(value, list)}
    return config.without(GRIDS, FIXED, SCALE, SCALES).override(plain)


def _fixed(config: Config) -> dict[str, Any]:
    """What wins over the grids at the chosen scale."""
    scales, scale = config.bindings.get(SCALES, {}), config.bindings.get(SCALE)
    if not isinstance(scales, dict):
        raise UsageError(f"{SCALES} must be {{scale: {{binding: value}}}}")
    fixed = scales.get(scale, config.bindings.get(FIXED, {}))
    if not isinstance(fixed, dict) or not all(isinstance(key, str) for key in fixed):
        raise UsageError(f"{FIXED} must be {{binding: value}}")
    return fixed


def _product(grid: Mapping[Any, Any], fixed: Mapping[str, Any]) -> Iterator[tuple[_Choice, ...]]:
    """The cells of a grid: a choice for each of its axes."""
    for cell in itertools.product(*(_axis(keys, values, fixed) for keys, values in grid.items())):
        seen = set()
        for choice in cell:
            if seen & choice.bindings.keys():
                raise UsageError(f"{GRIDS}: a grid sets {', '.join(seen & choice.bindings.keys())} twice")
            seen |= choice.bindings.keys()
        yield cell


def _axis(keys: str | tuple[str, ...], values: Any, fixed: Mapping[str, Any]) -> list[_Choice]:
    """What one axis chooses from, less what is fixed."""
    if isinstance(values, dict):
        choices = _labelled(keys, values, fixed)
    else:
        choices = [_Choice(bindings, {}) for bindings in _bound(keys, values)]
    return [_Choice(bindings, choice.labels) for choice in choices for bindings in _replaced(choice.bindings, fixed)]


def _labelled(name: str, choices: Mapping[str, Mapping[str, Any]], fixed: Mapping[str, Any]) -> list[_Choice]:
    """The choices of an axis of labels, or those of them that are kept."""
    if not isinstance(name, str) or "." in name:
        raise UsageError(
            f"{GRIDS}: {name!r} has a dict, so it must be a name without a dot, whose labels the dict's keys are"
        )
    if not choices or not all(isinstance(k, str) and _are_bindings(v) for k, v in choices.items()):
        raise UsageError(f"{GRIDS}: {name!r} must be {{label: {{binding: value}}}}")
    kept = fixed.get(name, list(choices))
    kept = kept if isinstance(kept, list) else [kept]
    if not set(kept) <= choices.keys():
        raise UsageError(f"{FIXED}: {name!r} has no label {', '.join(map(repr, sorted(set(kept) - choices.keys())))}")
    return [_Choice(dict(bindings), {name: label}) for label, bindings in choices.items() if label in kept]


def _bound(keys: str | tuple[str, ...], values: Any) -> list[dict[str, Any]]:
    """The bindings that an axis of values chooses from."""
    names = keys if isinstance(keys, tuple) else (keys,)
    if not names or not all(isinstance(name, str) and "." in name for name in names):
        raise UsageError(f"{GRIDS}: {keys!r} is no binding, nor a tuple of bindings")
    values = values if isinstance(values, list) else [values]
    if not values:
        raise UsageError(f"{GRIDS}: {keys!r} has no values")
    if isinstance(keys, str):
        return [{keys: value} for value in values]
    if not all(isinstance(value, tuple) and len(value) == len(keys) for value in values):
        raise UsageError(f"{GRIDS}: the values of {keys!r} must be tuples of {len(keys)}")
    return [dict(zip(keys, value, strict=True)) for value in values]


def _are_bindings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and "." in key for key in value)


def _replaced(bindings: Mapping[str, Any], fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The bindings with what is fixed in the place of their values; several, where it is a list."""
    values = [fixed.get(key, [value]) for key, value in bindings.items()]
    values = [value if isinstance(value, list) else [value] for value in values]
    return (dict(zip(bindings, cell, strict=True)) for cell in itertools.product(*values))


def _run_id(choices: Sequence[_Choice], config: Config) -> str:
    parts = []
    for choice in choices:
        # Labels stand for their bindings.
        for key, value in (choice.labels or choice.bindings).items():
            name = key.rpartition(".")[2]
            text = re.sub(r"[^\w.+-]+", "", str(value).replace(",", "-"))
            parts.append(text if name == "model" else f"{name}={text}")
    digest = hashlib.sha256(config.text.encode()).hexdigest()[:8]
    return "_".join([*parts, digest])[-200:]  # file names end at 255 bytes
