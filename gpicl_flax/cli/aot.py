"""The command `gpicl aot`: compiles the points of a sweep for a TPU slice and shows their cost."""

import argparse
import json
import sys

from gpicl_flax.cli import console
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `aot` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "aot",
        help="compile the training steps of a run or a sweep for a TPU slice that is not here",
        description="Compiles the training step of a run, or of every point of a sweep, with the compiler of libtpu, "
        "and prints for each device what it takes: flops and bytes of a step, memory, collectives. Nothing is run and "
        "no TPU is needed. Points that differ in numbers alone, such as seeds and learning rates, have one program. No "
        "base dataset is read: MNIST and its like, CIFAR-10, SVHN and digits are taken as published, any other as "
        "60,000 examples of the input shape.",
        epilog="Flops are the compiler's account of a step. It counts the body of a loop once: for programs with loops "
        "(marked with *), those of matrix products are counted in the program as it was traced, and divided by the "
        "devices.",
    )
    parser.set_defaults(command=_aot)
    console.add_gin(parser, required=True)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:AxBxC",
        help="the slice: v5e:4x4x1 (16 chips), v4:2x2x2 (8 chips), v5p, v6e, tpu7x",
    )
    console.add_pattern(parser, "--point")
    parser.add_argument(
        "--stack",
        type=console.positive,
        default=1,
        metavar="N",
        help="points that train together, where so many have the same program (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines, one a program, as they are compiled")


def _aot(arguments: argparse.Namespace) -> None:
    from gpicl_flax.sweep import aot, listing, stages, subset

    backend.check()
    points = subset.only(stages.points_or_run(_parse(arguments)), arguments.point)
    on = aot.Slice.describe(arguments.topology)
    runs = listing.resolve_all(points)
    results = aot.compile_all(points, runs, on, stack=arguments.stack, report=_report(arguments.json))
    untrained = sum(not run.training.steps for run in runs)
    if not arguments.json and results:
        print(aot.as_table(results, on))
    if untrained:
        out = sys.stderr if arguments.json else sys.stdout
        print(f"{untrained:,} of {len(points):,} points have Training.steps = 0: nothing to compile", file=out)


def _parse(arguments: argparse.Namespace):
    from gpicl_flax.config import parse

    return parse(arguments.gin_file, arguments.gin_bindings)


def _report(as_json: bool):
    """Returns a function that reports progress: lines of JSON, or a line for each program for whoever waits."""
    from gpicl_flax.sweep import aot

    def report(program, cost, number: int, total: int) -> None:
        if as_json:
            print(json.dumps(aot.as_dict(program, cost)), flush=True)
        else:
            tell(program, cost, number, total)

    return report


def tell(program, cost, number: int, total: int) -> None:
    """Prints a line about a program for whoever waits."""
    what = cost.problem or f"{cost.compile_seconds:.1f} s"
    print(f"[{number}/{total}] {program.name}: {what}", file=sys.stderr, flush=True)
