"""The command `gpicl train`: trains one run and meta-tests it."""

import argparse

from gpicl_flax.cli import console, outputs, results
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend, distributed

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `train` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "train",
        help="meta-train one model, meta-test it, draw its learning curve",
        description="Trains one run in a folder and meta-tests it. Started again on the same folder, it goes on where "
        "it stopped, with exactly the data it would have seen; a finished run is only shown.",
    )
    parser.set_defaults(command=_train)
    console.add_gin(parser, required=True)
    parser.add_argument(
        "--workdir", required=True, metavar="FOLDER", help="run folder, local or gs://; made if missing"
    )
    console.add_accept_lost_log(parser)
    console.add_quiet(parser)


def _train(arguments: argparse.Namespace) -> None:
    from gpicl_flax.config import parse
    from gpicl_flax.records.run_folder import RunFolder
    from gpicl_flax.records.stack_lease import LeaseUnavailable
    from gpicl_flax.runs.check import check_folder
    from gpicl_flax.runs.execute import RunSpec, execute
    from gpicl_flax.runs.run import resolve
    from gpicl_flax.runs.scale import GRIDS, PLATEAU_STOP, STAGES, without_sweep
    from gpicl_flax.runtime.preemption import StopRequest

    outputs.check_folder(arguments.workdir)
    distributed.connect()
    backend.check()
    config = parse(arguments.gin_file, arguments.gin_bindings)
    of_sweeps = [name for name in (GRIDS, PLATEAU_STOP, *STAGES) if name in config.bindings]
    if of_sweeps:
        raise UsageError(f"{', '.join(arguments.gin_file)} describes a sweep ({of_sweeps[0]}); use `gpicl sweep`")
    config = without_sweep(config)
    resolved = resolve(config)
    folder = RunFolder(arguments.workdir)
    check_folder(config, folder)
    if folder.ended:
        console.say(f"{folder} is done already; its results:")
    else:
        progress = console.progress(resolved.run.training.steps, quiet=arguments.quiet)
        with StopRequest() as stop:
            try:
                (diverged,) = execute(
                    [RunSpec(resolved, folder, [progress], arguments.accept_lost_log)], stop, wait=True
                )
            except LeaseUnavailable:  # another process has just ended it
                check_folder(config, folder)
            else:
                if diverged:
                    raise diverged
    results.show(folder)
