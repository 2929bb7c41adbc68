"""The command `gpicl sweep`: lists, estimates, runs and watches the points of a grid."""

import argparse
import functools
import re
import sys

from gpicl_flax.cli import console, outputs
from gpicl_flax.cli.aot import tell
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend, distributed

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `sweep` to the subparsers of `gpicl`."""
    # `_check` finds options that exclude each other, because argparse cannot express that.
    parser = commands.add_parser(
        "sweep",
        help="list, run or watch the points of a grid",
        description="Expands `sweep.grids` of a gin file into points and runs them here, stack after stack, each point "
        "in WORKDIR/<run id>. Points that are done are skipped, interrupted ones go on where they stopped, failed ones "
        "are tried again, diverged ones are not. Several machines can work on one WORKDIR: what another one trains is "
        "left to it, and taken over if it dies.",
    )
    parser.set_defaults(command=_sweep)
    console.add_gin(parser, required=True)
    parser.add_argument("--workdir", metavar="FOLDER", help="folder of the run folders, local or gs://")

    which = parser.add_argument_group("which points")
    console.add_pattern(which, "--only")
    which.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="of N shares of the points the I-th (from 1), for one of N machines; points that can train together stay "
        "together, if there are enough of others",
    )

    instead = parser.add_argument_group("instead of running them")
    modes = instead.add_mutually_exclusive_group()
    modes.add_argument("--list", action="store_true", help="print the points as a table")
    modes.add_argument(
        "--status",
        action="store_true",
        help="print how far each point in WORKDIR is, and who trains it; on a terminal, until all have ended or Ctrl-C",
    )
    modes.add_argument(
        "--dry_run",
        action="store_true",
        help="print what would run here (given --workdir: what is left of it) and what that will cost, by an estimate",
    )
    instead.add_argument("--json", action="store_true", help="the same as JSON lines; alone: the points")

    running = parser.add_argument_group("running them")
    running.add_argument(
        "--stack",
        type=_stack_size,
        metavar="auto|N|off",
        help="train points that differ in seed, learning rate and other numbers together, as stacks of at most N; auto "
        "(default): as many as fit an accelerator's memory, and none on CPU; results are those of single runs, up to "
        "rounding",
    )
    console.add_accept_lost_log(running)
    console.add_quiet(running)

    estimate = parser.add_argument_group("the estimate of --dry_run")
    estimate.add_argument("--chip", metavar="NAME", help="kind of chip: v4, v5e (default), v5p, v6e, tpu7x")
    estimate.add_argument(
        "--utilization", type=float, metavar="U", help="share of its peak that a step is taken to reach (default 0.3)"
    )
    estimate.add_argument(
        "--topology",
        metavar="CHIP:AxBxC",
        help="instead, compile every program for this slice, such as v5e:4x4x1, with the TPU compiler (needs libtpu, "
        "no TPU)",
    )


def _sweep(arguments: argparse.Namespace) -> None:
    _check(arguments)
    from gpicl_flax.sweep import listing, outcomes  # listing imports everything that gin files name

    if not (arguments.list or arguments.json or arguments.status or arguments.dry_run):
        distributed.connect()
    if not arguments.status or arguments.shard is not None:  # a status alone needs no device
        backend.check()
    config, find_points = _asked(arguments)
    if arguments.status:
        return _status(config, find_points, arguments)
    if arguments.dry_run:
        here = outcomes.unknown if arguments.workdir is None else outcomes.in_folder(arguments.workdir)
        return _dry_run(find_points(here), arguments)
    if arguments.json or arguments.list:
        points = find_points(outcomes.unknown)
        runs = listing.resolve_all(points)
        lines = listing.as_json(points, runs) if arguments.json else listing.as_table(points, runs)
        if lines:
            print(lines)
        return None
    return _run(config, find_points, arguments)


def _asked(arguments: argparse.Namespace):
    """Returns the configuration of the sweep, and a function from outcomes (see `sweep.outcomes`) to its points."""
    from gpicl_flax.config import parse
    from gpicl_flax.runs.plateau_stop import PlateauStop
    from gpicl_flax.runs.scale import PLATEAU_STOP
    from gpicl_flax.sweep import listing, outcomes, stages, subset

    config = parse(arguments.gin_file, arguments.gin_bindings)
    PlateauStop.from_gin(config.bindings.get(PLATEAU_STOP))  # refuses what does not fit, also where nothing runs
    units = None
    if arguments.shard is not None:  # shares do not depend on outcomes
        points = subset.only(stages.points(config), arguments.only)
        share = subset.shard(points, listing.resolve_all(points), *arguments.shard)
        units = {points[index].unit for index in share}

    def find_points(found: outcomes.Outcomes):
        points = subset.only(stages.points(config, found), arguments.only)
        return [point for point in points if units is None or point.unit in units]

    return config, find_points


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError if an option is missing, or is given but would do nothing."""
    listing = arguments.list or arguments.json and not (arguments.status or arguments.dry_run)
    if arguments.workdir is None and not listing and not arguments.dry_run:
        raise UsageError("--workdir is needed to run or watch a sweep (or --list to see it, --dry_run to estimate it)")
    if arguments.workdir is not None and listing:
        raise UsageError("--list and --json do not look into --workdir; --status does")
    for name in ("chip", "utilization", "topology"):
        if getattr(arguments, name) is not None and not arguments.dry_run:
            raise UsageError(f"--{name} is for --dry_run")
    if arguments.topology is not None and (arguments.chip is not None or arguments.utilization is not None):
        raise UsageError(
            "--topology names the chip and leaves no utilization to guess: give it, or --chip and --utilization"
        )
    if arguments.stack is not None and (
        listing or arguments.status or arguments.dry_run and arguments.topology is None
    ):
        raise UsageError("--stack is for running a sweep, or for --dry_run with --topology")
    if arguments.quiet and (listing or arguments.status or arguments.dry_run):
        raise UsageError("--quiet is for running a sweep")
    if arguments.accept_lost_log and (listing or arguments.status or arguments.dry_run):
        raise UsageError("--accept_lost_log is for running a sweep")
    if arguments.topology is not None and arguments.stack == "auto":
        raise UsageError("--stack auto looks at the devices here; with --topology, give a number")


def _run(config, find_points, arguments: argparse.Namespace) -> None:
    from gpicl_flax.records.stack_lease import decide
    from gpicl_flax.runs.plateau_stop import PlateauStop
    from gpicl_flax.runs.scale import PLATEAU_STOP
    from gpicl_flax.runtime.preemption import StopRequest
    from gpicl_flax.sweep import outcomes, runner, stacking, stages

    def say(text: str) -> None:
        if not arguments.quiet:
            console.say(text)

    outputs.check_folder(arguments.workdir)
    read = outcomes.in_folder(arguments.workdir)

    def agreed():  # the processes of a slice must come to the same points
        return find_points(lambda points, metric: decide(lambda: read(points, metric)))

    if arguments.shard is not None and not agreed():
        say(f"shard {arguments.shard[0]}/{arguments.shard[1]} has no points: there are fewer of them than shards")
    if arguments.stack in (None, "auto"):
        sizes = stacking.largest
    else:
        sizes = stacking.at_most(1 if arguments.stack == "off" else arguments.stack)
    with StopRequest() as stop:
        runner.run_all(
            agreed,
            arguments.workdir,
            stop,
            stack_sizes=sizes,
            make_progress=functools.partial(console.progress, quiet=arguments.quiet),
            say=say,
            warn=console.say,
            accept_lost_log=arguments.accept_lost_log,
            plateau_stop=PlateauStop.from_gin(config.bindings.get(PLATEAU_STOP)),
        )
    for line in stages.summary(config, read):
        say(line)


def _status(config, find_points, arguments: argparse.Namespace) -> None:
    from gpicl_flax.sweep import outcomes, stages, table

    def found():
        return find_points(outcomes.in_folder(arguments.workdir))

    if arguments.json:
        for each in table.read_all(found(), arguments.workdir):
            print(each.as_json())
        return
    if sys.stdout.isatty():
        table.watch(found, arguments.workdir, sys.stdout)
    else:
        print(table.as_table(table.read_all(found(), arguments.workdir)))
    for line in stages.summary(config, outcomes.in_folder(arguments.workdir)):
        print(line)


def _dry_run(points, arguments: argparse.Namespace) -> None:
    from gpicl_flax.runs.status import ENDED
    from gpicl_flax.sweep import aot, cost, listing, table

    runs = listing.resolve_all(points)
    if arguments.workdir is not None:
        found = table.read_all(points, arguments.workdir)
        left = [index for index, each in enumerate(found) if each.state not in ENDED]
        points, runs = [points[index] for index in left], [runs[index] for index in left]
        if not arguments.json:
            print(f"In {arguments.workdir}: {table.counts(found)}. What is left, each from its start:\n")
    if not any(run.training.steps for run in runs):
        print(f"{len(points):,} points to run, none that trains", file=sys.stderr if arguments.json else sys.stdout)
    elif arguments.topology is None:
        settings = {"chip": arguments.chip, "utilization": arguments.utilization}
        settings = {name: value for name, value in settings.items() if value is not None}
        print((cost.as_json if arguments.json else cost.as_table)(points, runs, **settings))
    else:
        stack = arguments.stack if isinstance(arguments.stack, int) else 1
        on = aot.Slice.describe(arguments.topology)
        results = aot.compile_all(points, runs, on, stack=stack, report=tell)
        print((cost.compiled_as_json if arguments.json else cost.compiled_as_table)(results, on))


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, such as 1/4, not {text!r}")
    return int(match[1]), int(match[2])


def _stack_size(text: str) -> str | int:
    if text in ("auto", "off"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be auto, off or a positive integer, not {text!r}")
    return int(text)
