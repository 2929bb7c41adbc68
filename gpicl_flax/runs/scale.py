"""The bindings `sweep.*` of a gin file, as far as a single run follows them: they shrink an experiment to a scale.

`sweep.grid` says what they mean for a sweep.
"""

import inspect
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
SELECT, BISECT = "sweep.select", "sweep.bisect"
# The settings of the stages of a sweep, which a single run does not follow.
STAGES = (
    SELECT, "sweep.select_metric", "sweep.select_seeds", "sweep.select_share", "sweep.select_budget",
    "sweep.select_validation_share", BISECT, "sweep.bisect_metric", "sweep.bisect_threshold", "sweep.bisect_resolution",
)  # fmt: skip
ALL = (GRIDS, FIXED, SCALE, SCALES, IMAGES_ONLY, PLATEAU_STOP, *STAGES)
_TASKS = "Run.tasks"


@gin.configurable
def sweep(
    grids: Sequence[Mapping[Any, Any]] = (),
    fixed: Mapping[str, Any] | None = None,
    scale: str | None = None,
    scales: Mapping[str, Sequence[Mapping[Any, Any]]] | None = None,
    images_only: Mapping[str, Any] | None = None,
    select: Mapping[Any, Any] | None = None,
    select_metric: str = "accuracy",
    select_seeds: int = 2,
    select_share: float = 1.0,
    select_budget: int | None = None,
    select_validation_share: float = 0.1,
    bisect: Mapping[str, Sequence[float]] | None = None,
    bisect_metric: str = "accuracy",
    bisect_threshold: float | None = None,
    bisect_resolution: float = 2.0,
    plateau_stop: Mapping[str, Any] | None = None,
) -> None:
    """Gives gin the names `sweep.grids` and so on; their values are read as they are written.

    `sweep.grid`, `sweep.selection`, `sweep.bisection` and `runs.plateau_stop` say what they are.
    """


def sweep_setting(config: Config, name: str) -> Any:
    """Returns a setting such as 'sweep.select_seeds', or its default."""
    return config.bindings.get(name, inspect.signature(sweep).parameters[name.removeprefix("sweep.")].default)


def without_sweep(config: Config, overrides: Mapping[str, Any] | None = None) -> Config:
    """Returns the configuration of a single run: without the grids, and with the fixed bindings in their place.

    Args:
      config: that of the experiment.
      overrides: the bindings that a cell of the grids sets, which win over all others.

    Raises:
      UsageError: sweep.fixed is not a dict of bindings, or there is nothing for the chosen scale.
    """
    plain = config.without(*ALL).override(fixed_bindings(config))
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
