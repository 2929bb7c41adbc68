"""The command `gpicl predict`: a meta-trained learner classifies the rows of a file."""

import argparse
import sys
from typing import Any

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import GpiclError, UsageError, first_line
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `predict` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "predict",
        help="classify the rows of a file by in-context learning from labelled examples",
        description="Gives labelled examples to a meta-trained learner as its context, and prints for each query the "
        "class it predicts and the probability of every class, as CSV. Nothing is trained. Files are CSV (UTF-8, a "
        "header, commas), or .npz with the arrays inputs [n, ...] and, for the context, labels [n].",
    )
    parser.set_defaults(command=_predict)
    parser.add_argument("--context", required=True, metavar="FILE", help="labelled examples")
    parser.add_argument("--queries", required=True, metavar="FILE", help="examples to classify")
    parser.add_argument(
        "--label",
        default="label",
        metavar="COLUMN",
        help="column of a CSV that holds the labels; in the queries it is not needed, and not read (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="a run folder, or what `gpicl export` wrote (default: the learner that comes with the package)",
    )
    parser.add_argument(
        "--members", type=console.positive, metavar="N", help="random projections to average over (default 16)"
    )
    parser.add_argument(
        "--shared_scale",
        action="store_true",
        help="standardise all features by one mean and one scale, as is right for the pixels of an image, not each by "
        "its own",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the projections (default %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="where the CSV goes (default: it is printed)")
    console.add_trust(parser)


def _predict(arguments: argparse.Namespace) -> None:
    from gpicl_flax.learners import tabular_io

    backend.check()
    if not 0 <= arguments.seed < 2**32:
        raise UsageError(f"--seed must be in 0..2**32-1, not {arguments.seed}")
    if arguments.out is not None:
        outputs.check_file(arguments.out)
    tabular_io.check_both_can_be_read(arguments.context, arguments.queries)
    context = tabular_io.read_context(arguments.context, arguments.label)
    queries = tabular_io.read_queries(arguments.queries, arguments.label, context)
    tabular_io.check_range(context, queries, shared_scale=arguments.shared_scale)
    from gpicl_flax.learners.classifier import InContextClassifier  # takes a second, which no mistake has to wait for

    settings: dict[str, Any] = {"shared_scale": arguments.shared_scale, "random_state": arguments.seed}
    settings |= {"trusted_modules": arguments.trust_imports}
    settings |= {} if arguments.members is None else {"n_estimators": arguments.members}
    classifier = InContextClassifier(arguments.checkpoint, **settings)
    try:
        classifier.fit(context.features, context.labels)
    except (TypeError, ValueError) as error:
        if isinstance(error.__cause__, GpiclError):  # an error of the checkpoint rather than the file
            raise error.__cause__ from None
        raise UsageError(f"{arguments.context}: {first_line(error)}") from error
    try:
        table = tabular_io.predictions(classifier, queries.features)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{arguments.queries}: {first_line(error)}") from error
    if arguments.out is None:
        sys.stdout.write(table)
    else:
        outputs.write_file(arguments.out, table)
