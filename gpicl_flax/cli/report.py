"""The command `gpicl report`: draws what the runs of a folder show."""

import argparse

from gpicl_flax.cli import console

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `report` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "report",
        help="draw what the runs of a sweep show: plateaus, speed-ups, phases, diagnostics",
        description="Draws every figure that the runs in a folder allow, also while they train: how long plateaus last "
        "and by how much interventions shorten them, what that costs, phases, diagnostics. Writes PNG, SVG, CSV and a "
        "page that shows them, index.html.",
    )
    parser.set_defaults(command=_report)
    parser.add_argument("workdir", metavar="WORKDIR", help="folder of a sweep, or one run folder, local or gs://")
    parser.add_argument("--out", metavar="FOLDER", help="where the report goes (default: WORKDIR/report)")
    parser.add_argument(
        "--after_drop",
        type=console.positive,
        metavar="N",
        help="compare runs N steps after they left their plateau (default: a quarter of those of the shortest "
        "intervention)",
    )


def _report(arguments: argparse.Namespace) -> None:
    from gpicl_flax.analysis.report import report

    print(report.write(arguments.workdir, arguments.out, after_drop=arguments.after_drop))
