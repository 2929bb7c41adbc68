"""The bindings `sweep.*` of a gin file, as far as a single run follows them: they shrink an experiment to a scale.

`sweep.grid` says what they mean for a sweep.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import gin

from gpicl_flax.config import Config, configurable_of, short_key
from gpicl_flax.errors import UsageError

GRIDS = "sweep.grids"
FIXED = "sweep.fixed"
SCALE = "sweep.scale"
SCALES = "sweep.scales"
IMAGES_ONLY = "sweep.images_only"
PLATEAU_STOP = "sweep.plateau_stop"
_TASKS = "Run.tasks"


@gin.configurable
def sweep(
    grids: Sequence[Mapping[Any, Any]] = (),
    fixed: Mapping[str, Any] | None = None,
    scale: str | None = None,
    scales: Mapping[str, Sequence[Mapping[Any, Any]]] | None = None,
    images_only: Mapping[str, Any] | None = None,
    plateau_stop: Mapping[str, Any] | None = None,
) -> None:
    """Gives gin the names `sweep.grids` and so on; their values are read as they are written."""


def without_sweep(config: Config, overrides: Mapping[str, Any] | None = None) -> Config:
    """Returns the configuration of a single run: without the grids, and with the fixed bindings in their place.

    Args:
      config: that of the experiment.
      overrides: the bindings that a cell of the grids sets, which win over all others.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings, or there is nothing for the chosen scale.
    """
    plain = config.without(GRIDS, FIXED, SCALE, SCALES, IMAGES_ONLY, PLATEAU_STOP).override(fixed_bindings(config))
    run = plain.override(overrides or {})
    return run if _has_base_dataset(run) else _without_images(run, bindings_of(config, IMAGES_ONLY))


def fixed_bindings(config: Config) -> dict[str, Any]:
    """Returns the bindings of `sweep.fixed`, which win over the grids; none where the scale has grids of its own."""
    return bindings_of(config, FIXED) if scaled_grids(config) is None else {}


def bindings_of(config: Config, name: str) -> dict[str, Any]:
    """Returns a parameter of `sweep` that is a dict of bindings; raises UsageError if it is not."""
    bindings = config.bindings.get(name, {})
    if not are_bindings(bindings):
        raise UsageError(f"{name} must be {{binding: value}}")
    return bindings


def _has_base_dataset(run: Config) -> bool:
    """Returns whether a run makes its tasks from a base dataset, as it does by default."""
    chosen = configurable_of(run.bindings.get(_TASKS))
    return getattr(chosen, "has_base_datasets", True)


def _without_images(run: Config, images_only: Mapping[str, Any]) -> Config:
    """Returns a configuration without what a scale sets for images alone. Another value there is the user's own."""
    written = {short_key(key): value for key, value in images_only.items()}
    same = [key for key, value in run.bindings.items() if written.get(short_key(key), ...) == value]
    return run.without(*same)


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
