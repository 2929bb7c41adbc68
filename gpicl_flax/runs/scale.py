"""The bindings `sweep.*` of a gin file, as far as a single run follows them: they shrink an experiment to a scale.

`sweep.grid` says what they mean for a sweep.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import gin

from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError

GRIDS = "sweep.grids"
FIXED = "sweep.fixed"
SCALE = "sweep.scale"
SCALES = "sweep.scales"


@gin.configurable
def sweep(
    grids: Sequence[Mapping[Any, Any]] = (),
    fixed: Mapping[str, Any] | None = None,
    scale: str | None = None,
    scales: Mapping[str, Sequence[Mapping[Any, Any]]] | None = None,
) -> None:
    """Gives gin the names `sweep.grids` and so on; their values are read as they are written."""


def without_sweep(config: Config) -> Config:
    """Returns the configuration of a single run: without the grids, and with the fixed bindings in their place.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings, or there is nothing for the chosen scale.
    """
    return config.without(GRIDS, FIXED, SCALE, SCALES).override(fixed_bindings(config))


def fixed_bindings(config: Config) -> dict[str, Any]:
    """Returns the bindings of `sweep.fixed`, which win over the grids; none where the scale has grids of its own."""
    fixed = config.bindings.get(FIXED, {}) if scaled_grids(config) is None else {}
    if not isinstance(fixed, dict) or not are_bindings(fixed):
        raise UsageError(f"{FIXED} must be {{binding: value}}")
    return fixed


def scaled_grids(config: Config) -> Any:
    """Returns the grids of the chosen scale, or None if it has none of its own."""
    scale, scales = config.bindings.get(SCALE), config.bindings.get(SCALES, {})
    if not isinstance(scales, dict):
        raise UsageError(f"{SCALES} must be {{scale: grids}}")
    if not isinstance(scale, str | NoneType):
        raise UsageError(f"{SCALE} must be the name of a scale, not {scale!r}")
    if scale is not None and scale not in scales and FIXED not in config.bindings:
        only = f", only of {', '.join(scales)}" if scales else ""
        raise UsageError(f"{SCALE} = {scale!r}: there are no grids of that scale{only}")
    return scales.get(scale)


def are_bindings(value: Any) -> bool:
    """Returns whether a value is a dict from names of bindings to values."""
    return isinstance(value, dict) and all(isinstance(key, str) and "." in key for key in value)
