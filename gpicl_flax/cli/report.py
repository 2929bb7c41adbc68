"""The command `gpicl report`: draws figures of the runs in a folder."""

import argparse
import os

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import UsageError

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `report` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "report",
        help="draw what the runs of a sweep show: plateaus, speed-ups, phases, diagnostics",
        description="Draws every figure that the runs in a folder allow, also while they train: how long plateaus last "
        "and by how much interventions shorten them, what that costs, phases, diagnostics. Writes PNG, SVG, CSV and a "
        "page that shows them, index.html. With --tables it writes instead all that these figures show as tables, in a "
        "few small files that can be kept and shared in place of the run folders. `gpicl report` draws the same from "
        "them.",
    )
    parser.set_defaults(command=_report)
    parser.add_argument(
        "workdir", metavar="WORKDIR", help="folder of a sweep, of one run, or of their tables, local or gs://"
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--out", metavar="FOLDER", help="where the report goes (default: WORKDIR/report)")
    target.add_argument("--tables", metavar="FOLDER", help="write tables there, and no report")
    parser.add_argument(
        "--after_drop",
        type=console.positive,
        metavar="N",
        help="compare runs N steps after they left their plateau (default: a quarter of those of the shortest "
        "intervention)",
    )


def _report(arguments: argparse.Namespace) -> None:
    from gpicl_flax.analysis.data import write_tables
    from gpicl_flax.analysis.report import report

    out = arguments.tables or arguments.out
    if out is not None or os.path.isdir(arguments.workdir):
        outputs.check_folder(out or arguments.workdir)
    if arguments.tables is not None:
        if arguments.after_drop is not None:
            raise UsageError("--after_drop changes no table: give it to `gpicl report` when it draws from the tables")
        print(write_tables.write(arguments.workdir, arguments.tables))
        return
    with console.figure_style():
        page = report.write(arguments.workdir, arguments.out, after_drop=arguments.after_drop, processes=None)
    print(page)
