"""The common parts of the commands of `gpicl`: options, plain lines, the progress line."""

import argparse
import contextlib
import sys
from collections.abc import Iterator

from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import distributed
from gpicl_flax.terminal.progress import ProgressLine, erase


def add_gin(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds the options for gin files and bindings."""
    parser.add_argument(
        "--gin_file",
        action="append",
        required=required,
        metavar="FILE",
        help="gin file, here or among those that come with gpicl (gin/quickstart.gin); repeat it, later ones win",
    )
    parser.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="one more binding, such as 'Run.seed = 1'; repeat it; wins over the files",
    )


def add_pattern(parser: argparse._ActionsContainer, name: str) -> None:
    """Adds the option that selects points by a pattern, see `sweep.subset.only`."""
    parser.add_argument(
        name,
        metavar="PATTERN",
        help="only points whose run id contains what this shell pattern describes, such as 'LSTM*seed=0'",
    )


def add_quiet(parser: argparse._ActionsContainer) -> None:
    """Adds the option that reduces the output to results, warnings and errors."""
    parser.add_argument("--quiet", action="store_true", help="print results, warnings and errors only, and no progress")


def add_accept_lost_log(parser: argparse._ActionsContainer) -> None:
    """Adds the option to resume a run whose log has lost rows."""
    parser.add_argument(
        "--accept_lost_log",
        action="store_true",
        help="resume a run even if rows of its metrics.jsonl are lost or damaged: it goes on as its checkpoint says, "
        "and run.json and tables name the gap",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names modules which a run folder may import."""
    parser.add_argument(
        "--trust_imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="let the run folder import this module, which is code that runs; needed for models of your own; repeat it",
    )


def resolve_run(arguments: argparse.Namespace):
    """Returns the settings of the run that the options of `add_gin` describe; raises UsageError for a sweep."""
    from gpicl_flax.config import parse  # takes a while, which `gpicl --help` avoids
    from gpicl_flax.runs.run import resolve
    from gpicl_flax.runs.scale import GRIDS, without_sweep

    config = parse(arguments.gin_file, arguments.gin_bindings)
    if GRIDS in config.bindings:
        raise UsageError(f"{', '.join(arguments.gin_file)} describes a sweep ({GRIDS}); name the file of one run")
    return resolve(without_sweep(config)).run


def positive(text: str) -> int:
    """Converts an option that must be a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def progress(total_steps: int, num_members: int = 1, *, quiet: bool = False):
    """Returns a progress line for a run, or a stack of runs, unless `quiet`. Only the primary process shows it."""
    if quiet or not distributed.is_primary():
        return lambda row, member=0: None
    return ProgressLine(total_steps, num_members)


def say(text: str) -> None:
    """Prints a line, even if nobody reads it any more. Only the primary process prints."""
    if not distributed.is_primary():
        return
    with contextlib.suppress(BrokenPipeError):  # a sweep continues when nobody reads any more
        print(f"{erase(sys.stdout)}{text}", flush=True)


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Draws figures in the style of matplotlib itself, whatever a matplotlibrc says, which can ask for LaTeX."""
    import matplotlib  # takes a while, which other commands avoid

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
