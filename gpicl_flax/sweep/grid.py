"""From a grid in gin to the points of a sweep.

    sweep.grids = [
        {'Run.model': @LSTM(), 'LSTM.hidden_size': [16, 64], 'Run.seed': [0, 1]},
        {'Run.model': @Transformer(), ('Transformer.num_layers', 'Transformer.model_size'): [(2, 64), (4, 256)]},
    ]

The sweep is the union of its grids, a grid the product of its axes. An axis is a binding with a list of values; what
is not a list is one fixed value. A tuple of bindings with a list of tuples zips them: they vary together.

`sweep.fixed`, a dict of bindings, wins over the grids: points that differ in nothing else become one. That is how a
file of gin/scale/ shrinks any sweep; a file without grids takes it as plain bindings.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin

from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError

GRIDS = "sweep.grids"
FIXED = "sweep.fixed"


@gin.configurable
def sweep(grids: Sequence[Mapping[Any, Any]] = (), fixed: Mapping[str, Any] | None = None) -> None:
    """Gives gin the names `sweep.grids` and `sweep.fixed`; their values are read as they are written, in `points`."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One cell of a sweep.

    Attributes:
      run_id: the values that vary, readable, and a hash of all bindings. It depends on this point alone, and so stays
        the same when the grid grows.
      overrides: the bindings that the grid sets.
      config: the whole configuration.
    """

    run_id: str
    overrides: dict[str, Any]
    config: Config


def points(config: Config) -> list[Point]:
    """The points of the sweep that `config` describes, in the order of its grids.

    Raises:
      UsageError: there is no grid, it has a wrong form, or two points are the same.
    """
    grids = config.bindings.get(GRIDS)
    if not isinstance(grids, list | tuple) or not grids or not all(isinstance(g, dict) and g for g in grids):
        raise UsageError(f"no sweep: {GRIDS} must be a list of {{binding: values}}, one dict a grid")
    base, fixed = without_sweep(config), config.bindings.get(FIXED, {})
    found = {}
    for overrides in itertools.chain.from_iterable(map(_product, grids)):
        overrides = {key: fixed.get(key, value) for key, value in overrides.items()}
        point_config = base.override(overrides)
        point = Point(_run_id(overrides, point_config), overrides, point_config)
        if point.run_id in found and not fixed:
            raise UsageError(f"{GRIDS}: two points are the same: {point.run_id}")
        found[point.run_id] = point
    return list(found.values())


def without_sweep(config: Config) -> Config:
    """The configuration of a single run: less the grids, and with the fixed bindings in their place.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings.
    """
    fixed = config.bindings.get(FIXED, {})
    if not isinstance(fixed, dict) or not all(isinstance(key, str) for key in fixed):
        raise UsageError(f"{FIXED} must be {{binding: value}}")
    return config.without(GRIDS, FIXED).override(fixed)


def _product(grid: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    for cell in itertools.product(*(_axis(keys, values) for keys, values in grid.items())):
        overrides = {}
        for part in cell:
            if overrides.keys() & part.keys():
                raise UsageError(f"{GRIDS}: a grid sets {', '.join(overrides.keys() & part.keys())} twice")
            overrides |= part
        yield overrides


def _axis(keys: str | tuple[str, ...], values: Any) -> list[dict[str, Any]]:
    """The overrides that one axis chooses from."""
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


def _run_id(overrides: Mapping[str, Any], config: Config) -> str:
    parts = []
    for key, value in overrides.items():
        name = key.rpartition(".")[2]
        text = re.sub(r"[^\w.+-]+", "", str(value).replace(",", "-"))
        parts.append(text if name == "model" else f"{name}={text}")
    digest = hashlib.sha256(config.text.encode()).hexdigest()[:8]
    return "_".join([*parts, digest])[-200:]  # file names end at 255 bytes
