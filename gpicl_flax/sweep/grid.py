"""From a grid in gin to the points of a sweep::

    sweep.grids = [
        {'Run.model': @LSTM(), 'LSTM.hidden_size': [16, 64], 'Run.seed': [0, 1]},
        {'Run.model': @Transformer(), ('Transformer.num_layers', 'Transformer.model_size'): [(2, 64), (4, 256)]},
        {'tokens': {'shifted': {}, 'aligned': {'Transformer.token_layout': 'aligned'}}},
    ]

The sweep is the union of its grids, a grid the product of its axes. An axis is a binding with a list of values; what
is not a list is one fixed value. A tuple of bindings with a list of tuples zips them: they vary together. A name with a
dict chooses between sets of bindings, each with a label, which the run keeps (`Run.labels`).

`sweep.fixed`, a dict of bindings, wins over the grids: points that differ in nothing else become one. That is how a
file of gin/scale/ shrinks any sweep; a file without grids takes it as plain bindings. An experiment that wants to be shrunk
otherwise says how: where `sweep.scale` is 'cpu' and `sweep.scales` has grids under that name, these take the place of
`sweep.grids`, and nothing is fixed. A scale with neither is an error, as nothing would be shrunk.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
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
    scales: Mapping[str, Sequence[Mapping[Any, Any]]] | None = None,
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
      names: the values and labels that vary, as the run id has them.
    """

    run_id: str
    overrides: dict[str, Any]
    config: Config
    names: tuple[str, ...] = ()


class _Choice(NamedTuple):
    """One value of an axis: its bindings, and its part of the run id."""

    bindings: dict[str, Any]
    labels: dict[str, str]


def points(config: Config) -> list[Point]:
    """The points of the sweep that `config` describes, in the order of its grids.

    Raises:
      UsageError: there is no grid, it has a wrong form, or two points are the same.
    """
    grids, fixed = _scaled_grids(config), _fixed(config)
    grids = config.bindings.get(GRIDS) if grids is None else grids
    if not isinstance(grids, list | tuple) or not grids or not all(isinstance(g, dict) and g for g in grids):
        raise UsageError(f"no sweep: {GRIDS} must be a list of {{binding: values}}, one dict a grid")
    base = without_sweep(config)
    found = {}
    for choices in itertools.chain.from_iterable(map(_product, grids)):
        for choice in choices:
            if choice.labels and choice.bindings.keys() & fixed.keys():
                raise UsageError(
                    f"{FIXED} would undo what {' '.join(choice.labels.values())!r} stands for "
                    f"({', '.join(sorted(choice.bindings.keys() & fixed.keys()))}); give the sweep grids of this scale ({SCALES})"
                )
        choices = [choice._replace(bindings=_replaced(choice.bindings, fixed)) for choice in choices]
        overrides = {key: value for choice in choices for key, value in choice.bindings.items()}
        labels = {name: label for choice in choices for name, label in choice.labels.items()}
        if labels:
            overrides[LABELS] = labels
        point_config = base.override(overrides)
        names = _names(choices)
        point = Point(_run_id(names, point_config), overrides, point_config, names)
        if point.run_id in found and not fixed:
            raise UsageError(f"{GRIDS}: two points are the same: {point.run_id}")
        found[point.run_id] = point
    return list(found.values())


def points_or_run(config: Config) -> list[Point]:
    """The points of a sweep, or a single run as one point; raises as `points` does."""
    if GRIDS in config.bindings:
        return points(config)
    single = without_sweep(config)
    return [Point(_run_id(("run",), single), {}, single)]


def without_sweep(config: Config) -> Config:
    """The configuration of a single run: less the grids, and with the fixed bindings in their place.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings, or there is nothing for the chosen scale.
    """
    return config.without(GRIDS, FIXED, SCALE, SCALES).override(_fixed(config))


def _fixed(config: Config) -> dict[str, Any]:
    """What wins over the grids."""
    fixed = config.bindings.get(FIXED, {}) if _scaled_grids(config) is None else {}
    if not isinstance(fixed, dict) or not _are_bindings(fixed):
        raise UsageError(f"{FIXED} must be {{binding: value}}")
    return fixed


def _scaled_grids(config: Config) -> Any:
    """The grids that are there for the chosen scale, or None."""
    scale, scales = config.bindings.get(SCALE), config.bindings.get(SCALES, {})
    if not isinstance(scales, dict):
        raise UsageError(f"{SCALES} must be {{scale: grids}}")
    if not isinstance(scale, str | NoneType):
        raise UsageError(f"{SCALE} must be the name of a scale, not {scale!r}")
    if scale is not None and scale not in scales and FIXED not in config.bindings:
        only = f", only of {', '.join(scales)}" if scales else ""
        raise UsageError(f"{SCALE} = {scale!r}: there are no grids of that scale{only}")
    return scales.get(scale)


def _product(grid: Mapping[Any, Any]) -> Iterator[tuple[_Choice, ...]]:
    """The cells of a grid: a choice for each of its axes."""
    for cell in itertools.product(*itertools.starmap(_axis, grid.items())):
        seen = set()
        for choice in cell:
            if seen & choice.bindings.keys():
                raise UsageError(f"{GRIDS}: a grid sets {', '.join(seen & choice.bindings.keys())} twice")
            seen |= choice.bindings.keys()
        yield cell


def _axis(keys: str | tuple[str, ...], values: Any) -> list[_Choice]:
    """What one axis chooses from."""
    if not isinstance(values, dict):
        return [_Choice(bindings, {}) for bindings in _bound(keys, values)]
    if not isinstance(keys, str) or "." in keys:
        raise UsageError(
            f"{GRIDS}: {keys!r} has a dict, so it must be a name without a dot, with labels as the dict's keys"
        )
    if not values or not all(isinstance(k, str) and _are_bindings(v) for k, v in values.items()):
        raise UsageError(f"{GRIDS}: {keys!r} must be {{label: {{binding: value}}}}")
    return [_Choice(dict(bindings), {keys: label}) for label, bindings in values.items()]


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


def _replaced(bindings: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    return {key: fixed.get(key, value) for key, value in bindings.items()}


def _names(choices: Sequence[_Choice]) -> tuple[str, ...]:
    names = []
    for choice in sorted(choices, key=lambda choice: not choice.labels):  # labels first; they stand for their bindings
        for key, value in (choice.labels or choice.bindings).items():
            name = key.rpartition(".")[2]
            text = re.sub(r"[^\w.+-]+", "", str(value).replace(",", "-"))
            names.append(text if name == "model" else f"{name}={text}")
    return tuple(names)


def _run_id(names: Sequence[str], config: Config) -> str:
    digest = hashlib.sha256(config.text.encode()).hexdigest()[:8]
    return "_".join([*names, digest])[-200:]  # file names end at 255 bytes
