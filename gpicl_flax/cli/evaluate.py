"""The command `gpicl evaluate`: meta-tests a run folder or a learner again."""

import argparse

from gpicl_flax.cli import console, outputs, results
from gpicl_flax.runtime import backend, distributed

# Imports inside the command keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `evaluate` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "evaluate",
        help="meta-test the newest checkpoint of a run folder anew",
        description="Meta-tests a run on seen and unseen tasks made from test examples, and draws its learning curve. "
        "With other settings than the run's own, the result goes to a file of its own in eval/. Of an exported "
        "learner, the result is only printed.",
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("folder", metavar="FOLDER", help="what `gpicl train` wrote, or `gpicl export`")
    parser.add_argument(
        "--base_datasets", nargs="+", metavar="NAME", help="instead of the run's own meta-test datasets"
    )
    parser.add_argument("--num_sequences", type=int, metavar="N", help="sequences a curve, instead of the run's own")
    console.add_trust(parser)


def _evaluate(arguments: argparse.Namespace) -> None:
    from gpicl_flax.analysis.report import run_summary
    from gpicl_flax.learners import learner
    from gpicl_flax.learners.evaluate import evaluate_learner
    from gpicl_flax.records.run_folder import RunFolder
    from gpicl_flax.runs.evaluate import evaluate

    folder = RunFolder(arguments.folder)
    if folder.is_exported:
        backend.check()
        found = learner.load(folder.path, arguments.trust_imports)
        evaluation = evaluate_learner(found, arguments.base_datasets, arguments.num_sequences)
        print(run_summary.accuracies(found.run_info, evaluation))
        return
    outputs.check_folder(arguments.folder)
    bindings = []
    if arguments.base_datasets:
        bindings.append(f"MetaTest.base_datasets = {arguments.base_datasets!r}")
    if arguments.num_sequences is not None:
        bindings.append(f"MetaTest.num_sequences = {arguments.num_sequences}")
    distributed.connect()
    backend.check()
    results.show(folder, evaluate(folder, tuple(bindings), arguments.trust_imports))
