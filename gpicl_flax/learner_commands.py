"""The commands `gpicl predict` and `gpicl export`: a meta-trained learner at work."""

import argparse
import sys

from gpicl_flax import console
from gpicl_flax.errors import GpiclError, UsageError, first_line

# Imports inside the commands keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `predict` and `export` to the subparsers of `gpicl`."""
    predict = commands.add_parser(
        "predict",
        help="classify the rows of a file by in-context learning from labelled examples",
        description="Gives labelled examples to a meta-trained learner as its context, and prints for each query the class it "
        "predicts and the probability of every class, as CSV. Nothing is trained. Files are CSV with a header, or .npz with the "
        "arrays inputs [n, ...] and, for the context, labels [n].",
    )
    predict.set_defaults(command=_predict)
    predict.add_argument("--context", required=True, metavar="FILE", help="labelled examples")
    predict.add_argument("--queries", required=True, metavar="FILE", help="examples to classify")
    predict.add_argument(
        "--label",
        default="label",
        metavar="COLUMN",
        help="column of a CSV that holds the labels; in the queries it is not needed, and not read (default: %(default)s)",
    )
    predict.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="a run folder, or what `gpicl export` wrote (default: the learner that comes with the package)",
    )
    predict.add_argument(
        "--members", type=console.positive, metavar="N", help="random projections to average over (default 16)"
    )
    predict.add_argument(
        "--shared_scale",
        action="store_true",
        help="standardise all features by one mean and one scale, as is right for the pixels of an image, not each by its own",
    )
    predict.add_argument("--seed", type=int, default=0, help="of the projections (default %(default)s)")
    predict.add_argument("--out", metavar="FILE", help="where the CSV goes (default: it is printed)")

    export = commands.add_parser(
        "export",
        help="write the learner of a run: settings and parameters, without the rest of its folder",
        description="Writes what it takes to predict with the newest checkpoint of a run: config.gin, run.json and "
        "parameters.npz.",
    )
    export.set_defaults(command=_export)
    export.add_argument("folder", metavar="RUN_FOLDER", help="what `gpicl train` wrote")
    export.add_argument("out", metavar="OUT", help="folder to write, new or of an earlier export")
    export.add_argument("--half", action="store_true", help="round parameters to 16 bits")


def _predict(arguments: argparse.Namespace) -> None:
    from etils import epath

    from gpicl_flax import examples
    from gpicl_flax.estimator import InContextClassifier

    if not 0 <= arguments.seed < 2**32:
        raise UsageError(f"--seed must be in 0..2**32-1, not {arguments.seed}")
    context, labels = examples.read_labelled(arguments.context, arguments.label)
    queries = examples.read_queries(arguments.queries, arguments.label, like=context)
    settings = {"shared_scale": arguments.shared_scale, "random_state": arguments.seed}
    settings |= {} if arguments.members is None else {"n_members": arguments.members}
    classifier = InContextClassifier(arguments.checkpoint, **settings)
    try:
        classifier.fit(context, labels)
    except (TypeError, ValueError) as error:
        if isinstance(error.__cause__, GpiclError):  # of the checkpoint, not of the file
            raise error.__cause__ from None
        raise UsageError(f"{arguments.context}: {first_line(error)}") from error
    try:
        table = examples.predictions(classifier, queries)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{arguments.queries}: {first_line(error)}") from error
    if arguments.out is None:
        sys.stdout.write(table)
    else:
        epath.Path(arguments.out).write_text(table)


def _export(arguments: argparse.Namespace) -> None:
    from gpicl_flax import learner
    from gpicl_flax.records.run_folder import RunFolder

    out = RunFolder(arguments.out)
    if out.path.exists() and any(out.path.iterdir()) and not (out.path / learner.PARAMETERS).exists():
        raise UsageError(f"{out} is not empty and holds no earlier export; choose another folder")
    learner.load(arguments.folder).save(out, "float16" if arguments.half else "float32")
    print(out)
