"""The command `gpicl export`: writes the learner of a run."""

import argparse

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `export` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "export",
        help="write the learner of a run: settings and parameters, without the rest of its folder",
        description="Writes what it takes to predict with the newest checkpoint of a run: config.gin, run.json and "
        "parameters.npz.",
    )
    parser.set_defaults(command=_export)
    parser.add_argument("folder", metavar="RUN_FOLDER", help="what `gpicl train` wrote")
    parser.add_argument("out", metavar="OUT", help="folder to write, new or of an earlier export")
    parser.add_argument("--half", action="store_true", help="round parameters to 16 bits")
    console.add_trust(parser)


def _export(arguments: argparse.Namespace) -> None:
    from gpicl_flax.learners import learner
    from gpicl_flax.records.run_folder import RunFolder

    outputs.check_folder(arguments.out)
    backend.check()
    out = RunFolder(arguments.out)
    if out.path.exists() and any(out.path.iterdir()) and not out.is_exported:
        raise UsageError(f"{out} is not empty and holds no earlier export; choose another folder")
    learner.load(arguments.folder, arguments.trust_imports).save(out, "float16" if arguments.half else "float32")
    print(out)
