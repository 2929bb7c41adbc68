"""The stages of a sweep: all its points, as far as they are known.

Most sweeps have one stage, the points of their grids. With `sweep.select` a first stage chooses settings for a second
(see `sweep.selection`), and with `sweep.bisect` each stage halves the distance to a threshold (see `sweep.bisection`).
What a later stage trains is a function of the run folders of earlier ones. So a sweep that was
interrupted at any moment goes on where it stopped, and several workers come to the same points.
"""

from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError
from gpicl_flax.runs.identity import digest
from gpicl_flax.runs.scale import BISECT, GRIDS, SELECT, STAGES, without_sweep
from gpicl_flax.sweep import bisection, grid, outcomes, run_ids, selection
from gpicl_flax.sweep.bisection import Bisection
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
    own, chosen, bisected = grid.points(config), Selection.from_config(config), _bisection(config)
    _check_used(config, SELECT, chosen is not None)
    if chosen is not None and bisected is not None:
        raise UsageError(f"{SELECT} and {BISECT} exclude each other: choose first, then bisect with what was chosen")
    if bisected is not None:
        return bisection.expand(own, bisected, found)
    return own if chosen is None else selection.expand(own, chosen, found)


def summary(config: Config, found: Outcomes) -> list[str]:
    """Returns what the points of a sweep say together, in lines: where a bisection has come to."""
    bisected = _bisection(config)
    return [] if bisected is None else bisection.summary(grid.points(config), bisected, found)


def _bisection(config: Config) -> Bisection | None:
    found = Bisection.from_config(config)
    _check_used(config, BISECT, found is not None)
    return found


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
