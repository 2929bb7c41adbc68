"""Shows what there is of a name: slices, JobSets, jobs or workers, what their shards ended with, and the runs."""

import pathlib

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import gcloud, gke, local, plan, slurm, storage, workers
from gpicl_flax.launch.gin_files import collect
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, Options
from gpicl_flax.launch.system import Answer, System

_TRIES = 3


def show(options: Options, system: System) -> None:
    """Shows it; raises GpiclError if something could not be read."""
    options = plan.complete(options)
    if not options.workdir and (options.engine == LOCAL or options.gin_files):
        raise UsageError("--workdir is needed, to read the run folders")
    problems = []
    try:
        {SLICES: _slices, GKE: _jobsets, LOCAL: _workers}.get(options.engine, _jobs)(options, system)
    except UsageError:
        raise
    except GpiclError as error:  # the rest can be shown all the same
        problems.append(str(error))
    if options.workdir:
        _results(options, system)
    if options.gin_files:
        problems += _runs(options, system)
    if problems:
        raise GpiclError("; ".join(problems))


def slices(options: Options, system: System) -> list[tuple[str, str]]:
    """Returns the slices of a name and their states, by number; raises GpiclError if gcloud fails."""
    options.need("project")
    options.need("zone")
    answer = system.call(gcloud.listing(options).words)
    if answer.code:
        raise GpiclError(answer.error)
    rows = (tuple(row.split()[:2]) for row in answer.output.splitlines())
    found = [(row[0], row[1]) for row in rows if len(row) == 2]
    start = f"{options.name}-"
    own = [(name, state) for name, state in found if name.startswith(start) and name.removeprefix(start).isdecimal()]
    return sorted(own, key=lambda row: int(row[0].removeprefix(start)))


def _slices(options: Options, system: System) -> None:
    found = slices(options, system)
    if not found:
        system.show(f"no slices of the name {options.name}")
    for name, state in found:
        system.show(f"{name:42} {state}")
        if options.log and state == gcloud.ACTIVE:
            answer = _log_of_slice(name, options, system)
            if answer.code:
                system.warn(f"the log of {name} could not be read: {answer.error}")
            else:
                system.show(answer.output)


def _log_of_slice(name: str, options: Options, system: System) -> Answer:
    """Returns the end of a log. It is the one use of ssh, which fails now and then, so it is tried again."""
    words = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", name, *gcloud.place(options), "--worker=0"]
    words.append(f"--command=sudo tail -n 20 /var/lib/gpicl/{name}.log")
    answer = system.call(words)
    for _ in range(_TRIES - 1):
        if answer.code:
            system.wait(1)
            answer = system.call(words)
    return answer


def _jobsets(options: Options, system: System) -> None:
    answer = system.call([*gke.kubectl(options), "get", "jobset", "-l", f"gpicl-launch={options.name}"])
    if answer.code:
        raise GpiclError(f"kubectl: {answer.error}")
    system.show(answer.output or f"no JobSets of the name {options.name}")


def _jobs(options: Options, system: System) -> None:
    found = slurm.queue(options, system)
    for task in found:
        system.show(f"{f'{options.name}-{task.shard}':42} {task.state}, job {task.id}, {task.where}")
    if not found:
        system.show(f"no jobs of the name {options.name} wait or run")


def _workers(options: Options, system: System) -> None:
    folder = pathlib.Path(options.workdir) / ".launch"
    numbers = workers.numbers(folder, options.name)
    for number in numbers:
        name = f"{options.name}-{number}"
        process = workers.live(folder, name)
        state = f"running, process {process.pid}" if process else "not running"
        system.show(f"{name:42} {state}, log in {workers.log_path(folder, name)}")
    if not numbers:
        system.show(f"no workers of the name {options.name}")


def _results(options: Options, system: System) -> None:
    for path in storage.matching(system, f"{options.workdir}/.launch", f"{options.name}-*.result"):
        name = pathlib.PurePath(path).stem
        if name.removeprefix(f"{options.name}-").isdecimal() and (found := storage.values(storage.read(system, path))):
            ending = f"ended with exit code {found.get('exit_code')} at {found.get('finished')}"
            system.show(f"{name:42} {ending}: {found.get('why')}")


def _runs(options: Options, system: System) -> list[str]:
    """Shows the table of the runs, from their folders."""
    gpicl = local.gpicl(options, system)
    answer = system.call([gpicl, *plan.table_arguments(options, collect(options))])
    system.show(answer.output)
    return [answer.error.removeprefix("gpicl: error: ")] if answer.code else []
