"""Makes points of a sweep's stages from those of its grid, with other values, another seed, and ids of their own."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpicl_flax.config import Config, short_key
from gpicl_flax.runs.identity import digest
from gpicl_flax.sweep import run_ids
from gpicl_flax.sweep.grid import LABELS, Point

SEED = "Run.seed"


def binding(config: Config, name: str, default: Any) -> Any:
    """Returns the value of a binding, however it spells its name."""
    return next((value for key, value in config.bindings.items() if short_key(key) == name), default)


def without(config: Config, names: Iterable[str]) -> Config:
    """Returns a configuration without some bindings, however it spells their names."""
    names = set(names)
    return config.without(*(key for key in config.bindings if short_key(key) in names))


def configuration(point: Point, names: Iterable[str]) -> str:
    """Returns what points share that differ in the seed and in these bindings alone."""
    return digest(without(point.config, {SEED, *names}))


def labelled(point: Point, labels: Mapping[str, str]) -> dict[str, Any]:
    """Returns the binding of a point's labels with some more, where there are any."""
    return {LABELS: {**point.overrides.get(LABELS, {}), **labels}} if labels else {}


def derive(
    point: Point,
    bindings: Mapping[str, Any],
    values: Mapping[str, str],
    *,
    stage: str,
    configuration: str,
    base: Config | None = None,
    record: Mapping[str, Any] | None = None,
    pending: Mapping[str, str] | None = None,
) -> Point:
    """Returns a point of a stage.

    Args:
      point: that of the grid.
      bindings: those that change.
      values: what the run id says of them.
      stage: the stage.
      configuration: see `Point`.
      base: the configuration to change; None: that of the point.
      record: bindings that no list shows.
      pending: for a point whose values are not known, what lists show for them. `bindings` are then stand-ins.
    """
    config = (base or point.config).override({**bindings, **(record or {})})
    old, new = (run_ids.part("seed", binding(each, SEED, 0)) for each in (point.config, config))
    own = (run_ids.part(key.rpartition(".")[2], value) for key, value in values.items())
    # The seed comes last, also one that the grid does not name.
    seed = [new] if old in point.names or SEED in bindings else []
    names = (*(part for part in point.names if part != old), *own, *seed)
    overrides = {**point.overrides, **bindings, **(pending or {})}
    identity = digest(config) if pending is None else ""
    run_id = run_ids.join(names, identity) if identity else "_".join(names)
    return Point(run_id, overrides, config, names, identity, stage=stage, configuration=configuration)
