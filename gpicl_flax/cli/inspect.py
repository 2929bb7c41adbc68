"""The command `gpicl inspect`: shows the contents of a run folder."""

import argparse

from gpicl_flax.cli import console
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `inspect` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "inspect",
        help="show what a run folder holds: parameters by module, settings, data, checkpoints, how far it is",
        description="Shows a run that is done, diverged or half finished: how far it is, its phase and best metrics, "
        "the model's sizes and its parameters by module, the base dataset and its fingerprint, checkpoints and "
        "bindings. Nothing is trained, and no data are read.",
    )
    parser.set_defaults(command=_inspect)
    parser.add_argument("folder", metavar="RUN_FOLDER", help="what `gpicl train` wrote, or a point of a sweep")
    parser.add_argument("--json", action="store_true", help="print it as one line of JSON")
    console.add_trust(parser)


def _inspect(arguments: argparse.Namespace) -> None:
    from gpicl_flax.records.run_folder import RunFolder
    from gpicl_flax.runs.inspection import inspect

    backend.check()
    found = inspect(RunFolder(arguments.folder), arguments.trust_imports)
    print(found.as_json() if arguments.json else found.as_text())
