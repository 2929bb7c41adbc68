"""The console command `gpicl`. Every subcommand is a call into a room of the package."""

import argparse
import contextlib
import logging
import sys
import traceback
from collections.abc import Callable, Iterator

import gpicl_flax
from gpicl_flax import (
    cache,
    compile_commands,
    console,
    dataset_commands,
    hosts,
    learner_commands,
    progress,
    sweep_commands,
)
from gpicl_flax.errors import GpiclError, Preempted, UsageError, first_line

# Imports inside the subcommands keep `gpicl --help` instant.


def main(argv: list[str] | None = None) -> int:
    """Runs `gpicl` and returns its exit code: 0 done, 1 failed, 2 wrong usage, 42 preempted after saving."""
    arguments = parser().parse_args(argv)
    cache.keep_compiled_programs()
    try:
        with _log_to_stderr(quiet=getattr(arguments, "quiet", False)):
            exit_code, message = _run(arguments)
    except Exception as error:
        traceback.print_exc()
        hosts.leave(1, first_line(error))
        raise
    if message and (exit_code != Preempted.exit_code or hosts.is_first()):
        print(f"\ngpicl: {message}", file=sys.stderr)
    if exit_code in (0, Preempted.exit_code):
        hosts.disconnect()
    else:
        hosts.leave(exit_code, message)
    return exit_code


def _run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Runs a command; returns its exit code and, unless it is 0, the line that says why."""
    try:
        arguments.command(arguments)
    except Preempted as error:
        return error.exit_code, str(error)
    except GpiclError as error:
        return error.exit_code, f"error: {error}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    except BrokenPipeError:  # the reader of a table, `head` say, has seen enough; all else was done before
        sys.stderr.close()
    except (
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
        FileExistsError,
        ImportError,
    ) as error:  # also of what gs:// needs
        return 2, f"error: {error}"
    except OSError as error:  # a full disk
        return 1, f"error: {error}"
    return 0, ""


def parser() -> argparse.ArgumentParser:
    """The parser of `gpicl` and all its subcommands."""
    parser = argparse.ArgumentParser(
        prog="gpicl",
        description="Meta-train sequence models that learn new tasks from context alone, and study what makes them do so.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong usage; 42 preempted after saving (start the same command again).",
    )
    parser.add_argument("--version", action="version", version=f"gpicl_flax {gpicl_flax.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    train = _add(
        commands,
        "train",
        _train,
        "meta-train one model, meta-test it, draw its learning curve",
        "Trains one run in a folder and meta-tests it. Started again on the same folder, it goes on where it "
        "stopped, with exactly the data it would have seen; a finished run is only shown.",
    )
    console.add_gin(train, required=True)
    train.add_argument("--workdir", required=True, metavar="FOLDER", help="run folder, local or gs://; made if missing")
    console.add_quiet(train)

    evaluate = _add(
        commands,
        "evaluate",
        _evaluate,
        "meta-test the newest checkpoint of a run folder anew",
        "Meta-tests a run on seen and unseen tasks made from test examples, and draws its learning curve. With "
        "other settings than the run's own, the result goes to a file of its own in eval/. Of an exported learner, "
        "the result is only printed.",
    )
    evaluate.add_argument("folder", metavar="FOLDER", help="what `gpicl train` wrote, or `gpicl export`")
    evaluate.add_argument(
        "--base_datasets", nargs="+", metavar="NAME", help="instead of the run's own meta-test datasets"
    )
    evaluate.add_argument("--num_sequences", type=int, metavar="N", help="sequences a curve, instead of the run's own")

    inspect = _add(
        commands,
        "inspect",
        _inspect,
        "show what a run folder holds: parameters by module, settings, data, checkpoints, how far it is",
        "Shows a run that is done, diverged or half finished: how far it is, its phase and best metrics, the model's sizes and "
        "its parameters by module, the base dataset and its fingerprint, checkpoints and bindings. Nothing is trained, and no "
        "data are read.",
    )
    inspect.add_argument("folder", metavar="RUN_FOLDER", help="what `gpicl train` wrote, or a point of a sweep")
    inspect.add_argument("--json", action="store_true", help="print it as one line of JSON")

    sweep_commands.add(commands)

    report = _add(
        commands,
        "report",
        _report,
        "draw what the runs of a sweep show: plateaus, speed-ups, phases, diagnostics",
        "Draws every figure that the runs in a folder allow, also while they train: how long plateaus last and by how "
        "much interventions shorten them, what that costs, phases, diagnostics. Writes PNG, SVG, CSV and a page that shows "
        "them, index.html.",
    )
    report.add_argument("workdir", metavar="WORKDIR", help="folder of a sweep, or one run folder, local or gs://")
    report.add_argument("--out", metavar="FOLDER", help="where the report goes (default: WORKDIR/report)")
    report.add_argument(
        "--after_drop",
        type=console.positive,
        metavar="N",
        help="compare runs N steps after they left their plateau (default: a quarter of those of the shortest intervention)",
    )

    listing = _add(
        commands,
        "models",
        _models,
        "list every model and baseline with its sizes",
        "Prints every sequence model and baseline at its default settings: parameters, and state size as the paper "
        "counts it and as every number that the next prediction can depend on.",
    )
    listing.add_argument(
        "--inputs",
        type=console.positive,
        default=196,
        metavar="X",
        help="input features; 14x14x1 has %(default)s (default)",
    )
    listing.add_argument(
        "--sequence_length",
        type=console.positive,
        default=100,
        metavar="T",
        help="examples of a sequence (default %(default)s)",
    )

    learner_commands.add(commands)
    compile_commands.add(commands)
    dataset_commands.add(commands)
    return parser


@contextlib.contextmanager
def _log_to_stderr(*, quiet: bool) -> Iterator[None]:
    """What the package logs, as plain lines, warnings alone if `quiet`; what other packages log as usual. Of several processes
    the first speaks."""

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            kind = "" if record.levelno < logging.WARNING else "warning: "
            return f"{progress.erase(handler.stream)}{kind}{record.getMessage()}"

    logger, handler = logging.getLogger(gpicl_flax.__name__), logging.StreamHandler()
    handler.setFormatter(Formatter())
    handler.addFilter(lambda record: hosts.is_first() or record.levelno > logging.WARNING)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False  # some libraries give the root logger a handler of their own
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def _add(commands, name: str, command: Callable, summary: str, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=command)
    return parser


def _train(arguments: argparse.Namespace) -> None:
    from gpicl_flax.config import parse
    from gpicl_flax.records.run_folder import RunFolder
    from gpicl_flax.run import Run, Start, check_folder, execute
    from gpicl_flax.sweep import grid
    from gpicl_flax.training.preemption import StopRequest

    hosts.connect()
    config = parse(arguments.gin_file, arguments.gin_bindings)
    if grid.GRIDS in config.bindings:
        raise UsageError(f"{', '.join(arguments.gin_file)} describes a sweep ({grid.GRIDS}); use `gpicl sweep`")
    config = grid.without_sweep(config)
    run, _ = config.resolve(Run)
    folder = RunFolder(arguments.workdir)
    check_folder(config, folder)
    if folder.ended:
        console.say(f"{folder} is done already; its results:")
    else:
        with StopRequest() as stop:
            execute(Start(config, folder, console.progress(run.training.steps, quiet=arguments.quiet)), stop)
    _show(folder)


def _evaluate(arguments: argparse.Namespace) -> None:
    from gpicl_flax import learner
    from gpicl_flax.analysis import results
    from gpicl_flax.evaluate import evaluate, evaluate_learner
    from gpicl_flax.records.run_folder import RunFolder

    folder = RunFolder(arguments.folder)
    if learner.is_exported(folder):
        found = learner.load(folder.path)
        evaluation = evaluate_learner(found, arguments.base_datasets, arguments.num_sequences)
        print(results.accuracies(found.facts, evaluation))
        return
    bindings = []
    if arguments.base_datasets:
        bindings.append(f"MetaTest.base_datasets = {arguments.base_datasets!r}")
    if arguments.num_sequences is not None:
        bindings.append(f"MetaTest.num_sequences = {arguments.num_sequences}")
    hosts.connect()
    _show(folder, evaluate(folder, tuple(bindings)))


def _inspect(arguments: argparse.Namespace) -> None:
    from gpicl_flax.inspection import inspect
    from gpicl_flax.records.run_folder import RunFolder

    found = inspect(RunFolder(arguments.folder))
    print(found.as_json() if arguments.json else found.as_text())


def _report(arguments: argparse.Namespace) -> None:
    from gpicl_flax.analysis import report

    print(report.write(arguments.workdir, arguments.out, after_drop=arguments.after_drop))


def _models(arguments: argparse.Namespace) -> None:
    from gpicl_flax import catalogue

    print(catalogue.as_table(arguments.inputs, arguments.sequence_length))


def _show(folder, evaluation=None) -> None:
    """Prints the results and draws the picture: of the run, or of an evaluation file with other settings."""
    if hosts.is_first():
        from gpicl_flax.analysis import learning_curve, results
        from gpicl_flax.records.run_folder import read_json

        own = evaluation is None or evaluation.name.count("_") == 1
        values = folder.latest_evaluation() if own else read_json(evaluation)
        picture = folder.learning_curve if own else evaluation.with_suffix(".png")
        learning_curve.save(folder, values, picture)
        print(f"{results.summary(folder, values)}\n{picture}")
