"""Deletes everything of a name: slices, JobSets, jobs or workers. Run folders stay."""

import pathlib
import signal

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import gcloud, gke, plan, slurm, status, workers
from gpicl_flax.launch.actions import line, shown
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, Options
from gpicl_flax.launch.system import System


def delete(options: Options, system: System) -> None:
    """Deletes it; raises GpiclError if something could not be deleted, UsageError if nobody can be asked."""
    options.need("name")
    options = plan.complete(options)
    {SLICES: _slices, GKE: _jobsets, LOCAL: _workers}.get(options.engine, _jobs)(options, system)


def _confirm(names: list[str], options: Options, system: System) -> None:
    """Asks once; raises GpiclError if the answer is no, UsageError if nobody can answer."""
    system.show(f"to be deleted: {' '.join(names)}")
    answer = "y" if options.yes else system.ask("delete? [y/N] ")
    if answer is None:
        raise UsageError("nobody can answer here; --yes deletes without asking")
    if not answer.lower().startswith("y"):
        raise GpiclError("nothing was deleted")


def _slices(options: Options, system: System) -> None:
    if options.dry_run:
        options.need("project")
        options.need("zone")
        system.show("# For every number behind the name that the list shows")
        system.show(shown(gcloud.listing(options)))
        system.show(shown(gcloud.deletion(options, f"{options.name}-N")))
        return
    names = [name for name, state in status.slices(options, system) if state != "DELETING"]
    if not names:
        system.say(f"no slices of the name {options.name}")
        return
    _confirm(names, options, system)
    failed = []
    for name in names:
        system.say(f"{name}: deleting")
        if not gcloud.delete(system, options, name):
            failed.append(name)
    if failed:
        raise GpiclError(f"not deleted: {' '.join(failed)}")


def _jobsets(options: Options, system: System) -> None:
    start, label = gke.kubectl(options), f"gpicl-launch={options.name}"
    words = [*start, "delete", "jobset,configmap", "-l", label, "--ignore-not-found"]
    if options.dry_run:
        system.show(line(words))
        return
    answer = system.call([*start, "get", "jobset", "-l", label, "-o", "name"])
    if answer.code == 0 and not answer.output:
        system.say(f"no JobSets of the name {options.name}")
        return
    if answer.code == 0:
        _confirm(answer.output.split(), options, system)
        answer = system.call(words)
    if answer.code:
        raise GpiclError(f"kubectl: {answer.error}")
    system.say(f"{options.name}: deleted")


def _jobs(options: Options, system: System) -> None:
    if options.dry_run:
        system.show("# For every job of the name that squeue shows")
        system.show("scancel JOB_SHARD")
        return
    found = slurm.queue(options, system)
    if not found:
        system.say(f"no jobs of the name {options.name} wait or run")
        return
    _confirm([task.id for task in found], options, system)
    answer = slurm.cancel(found, system)
    if answer.code:
        raise GpiclError(f"scancel: {answer.error}")
    system.say(f"{options.name}: cancelled")


def _workers(options: Options, system: System) -> None:
    """Stops workers. They save before they end, so this waits for them."""
    options.need("workdir", "with --engine local")
    folder = pathlib.Path(options.workdir) / ".launch"
    names = [f"{options.name}-{number}" for number in workers.numbers(folder, options.name)]
    found = {name: process for name in names if (process := workers.live(folder, name))}
    if options.dry_run:
        for process in found.values():
            system.show(line(["kill", "-TERM", str(process.pid)]))
        return
    if not found:
        system.say(f"no workers of the name {options.name}")
        return
    _confirm(list(found), options, system)
    for process in found.values():
        workers.tell(process, signal.SIGTERM)
    for name in found:
        while workers.live(folder, name):
            system.wait(0.2)
        workers.pid_path(folder, name).unlink(missing_ok=True)
        system.say(f"{name}: stopped")
