"""The stages of a sweep: all its points, as far as they are known.

Most sweeps have one stage, the points of their grids. With `sweep.select` a first stage chooses settings for a second
(see `sweep.selection`). What a later stage trains is a function of the run folders of earlier ones. So a sweep that was
interrupted at any moment goes on where it stopped, and several workers come to the same points.
"""

from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError
from gpicl_flax.runs.identity import digest
from gpicl_flax.runs.scale import GRIDS, STAGES, without_sweep
from gpicl_flax.sweep import grid, outcomes, run_ids, selection
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.outcomes import Outcomes
from gpicl_flax.sweep.selection import Selection


def points(config: Config, found: Outcomes = outcomes.unknown) -> list[Point]:
    """Returns the points of all stages of a sweep.

    Args:
      config: that of the sweep.
      found: reads the outcomes of points, on which later stages depend. While they are unknown, points are pending.

    Raises:
      UsageError: see `grid.points`, or a setting of a stage has a wrong form.
    """
    own, chosen = grid.points(config), Selection.from_config(config)
    _check_used(config, "sweep.select", chosen is not None)
    return own if chosen is None else selection.expand(own, chosen, found)


def points_or_run(config: Config) -> list[Point]:
    """Returns the points of all stages of a sweep, or a single run as one point; raises as `points` does."""
    if GRIDS in config.bindings:
        return points(config)
    single = without_sweep(config)
    identity = digest(single)
    return [Point(run_ids.join(("run",), identity), {}, single, digest=identity)]


def _check_used(config: Config, stage: str, used: bool) -> None:
    """Raises UsageError if a setting of a stage is bound, but the stage is not."""
    idle = sorted(key for key in config.bindings if key in STAGES and key.startswith(f"{stage}_"))
    if idle and not used:
        raise UsageError(f"{idle[0]} has no effect without {stage}")
