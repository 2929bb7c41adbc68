"""The command `gpicl models`: lists every model with its sizes."""

import argparse

from gpicl_flax.cli import console
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `models` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "models",
        help="list every model and baseline with its sizes",
        description="Prints every sequence model and baseline at its default settings: parameters, and state size as "
        "the paper counts it and as every number that the next prediction can depend on, with what these are: a "
        "matrix, its normaliser, the inputs of a convolution, the token before, keys and values.",
    )
    parser.set_defaults(command=_models)
    parser.add_argument(
        "--inputs",
        type=console.positive,
        default=196,
        metavar="X",
        help="input features; 14x14x1 has %(default)s (default)",
    )
    parser.add_argument(
        "--sequence_length",
        type=console.positive,
        default=100,
        metavar="T",
        help="examples of a sequence (default %(default)s)",
    )
    parser.add_argument(
        "--predicts",
        choices=("classes", "numbers", "normals"),
        default="classes",
        help="the kind of targets (default %(default)s); normals have a mean and a variance. Models that cannot "
        "predict it are left out",
    )


def _models(arguments: argparse.Namespace) -> None:
    from gpicl_flax.runs import model_zoo

    backend.check()
    print(model_zoo.as_table(arguments.inputs, arguments.sequence_length, arguments.predicts))
