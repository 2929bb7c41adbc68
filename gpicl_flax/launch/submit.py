"""Submits a plan to its engine, or shows what that would do."""

from collections.abc import Iterable

from gpicl_flax.launch import actions, gke, local, plan, queued_resources, slurm
from gpicl_flax.launch.actions import Action
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, Options
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import System


def submit(options: Options, system: System) -> None:
    """Runs or submits a launch; with --dry_run, shows it.

    Raises:
      UsageError: something that was asked for cannot be done. Nothing was made.
      GpiclError: something failed.
    """
    if options.engine == SLICES:
        options.need("project")
        options.need("zone")
    elif options.engine == GKE:
        gke.check(options)
    made = plan.make(options, system)
    if not options.dry_run:
        {SLICES: queued_resources.run, GKE: gke.run, LOCAL: local.run}.get(options.engine, slurm.run)(made, system)
        return
    for action in (*_found(made), *_shown(made, system)):
        system.show(actions.shown(action))


def _shown(made: Plan, system: System) -> Iterable[Action]:
    if made.options.engine == SLICES:
        return queued_resources.shown(made)
    if made.options.engine == GKE:
        return gke.shown(made)
    return local.shown(made, system) if made.options.engine == LOCAL else slurm.shown(made, system)


def _found(made: Plan) -> Iterable[Action]:
    """Yields what was seen of the base datasets that the points read."""
    if made.datasets:
        yield actions.Note(f"Base datasets that the runs read, prepared here: {', '.join(made.datasets)}")
    for name, what in made.missing.items():
        if made.options.prepare_on_hosts:
            yield actions.Note(f"Prepared on the hosts: {name}")
        else:
            yield actions.Note(f"NOT PREPARED, so that a real run ends here: {what}")
