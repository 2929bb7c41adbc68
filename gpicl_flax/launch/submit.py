"""Submits a plan to its engine, or shows what that would do."""

from collections.abc import Iterator

from gpicl_flax.errors import UsageError
from gpicl_flax.launch import actions, gke, local, plan, queued_resources, slurm
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, SLURM, Options
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import System

_ENGINES = {SLICES: queued_resources, GKE: gke, SLURM: slurm, LOCAL: local}


def submit(options: Options, system: System) -> None:
    """Runs or submits a launch; with --dry_run, shows it.

    Raises:
      UsageError: something that was asked for cannot be done. Nothing was made.
      GpiclError: something failed.
    """
    if not options.gin_files:
        raise UsageError("a gin file is needed, such as gin/state_size.gin (--help explains)")
    if options.engine == SLICES:
        options.need("project")
        options.need("zone")
    elif options.engine == GKE:
        gke.check(options)
    made, engine = plan.make(options, system), _ENGINES[options.engine]
    if not options.dry_run:
        engine.run(made, system)
        return
    for action in (*_found(made), *engine.shown(made, system)):
        system.show(actions.shown(action))


def _found(made: Plan) -> Iterator[str]:
    """Yields what was seen of the base datasets that the points read."""
    if made.datasets:
        yield f"# Base datasets that the runs read, prepared here: {', '.join(made.datasets)}"
    if made.prepared_there:
        yield f"# Base datasets that the hosts prepare: {', '.join(made.prepared_there)}"
    elif made.missing:
        yield f"# A real run ends here: {made.not_prepared}"
