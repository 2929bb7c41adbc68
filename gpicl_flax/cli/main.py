"""The console command `gpicl`. Every subcommand calls one room of the package."""

import argparse
import contextlib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import gpicl_flax
from gpicl_flax.cli import (
    aot,
    check_scaling,
    datasets,
    evaluate,
    export,
    inspect,
    launch,
    models,
    predict,
    profile,
    report,
    sweep,
    train,
)
from gpicl_flax.errors import GpiclError, Preempted, brief, first_line
from gpicl_flax.runtime import backend, caches, distributed
from gpicl_flax.terminal import progress

# They are in the order in which `gpicl --help` lists them.
COMMANDS = (
    train, evaluate, inspect, sweep, launch, report, models, check_scaling, predict, export, aot, profile, datasets,
)  # fmt: skip


def run_process() -> NoReturn:
    """Runs `gpicl` as a process, and ends it.

    If the command has failed, no thread delays the end: after a failed save to gs://, those of Orbax wait for minutes.
    """
    exit_code = main()
    if exit_code == GpiclError.exit_code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def main(argv: list[str] | None = None) -> int:
    """Runs `gpicl` and returns its exit code: 0 done, 1 failed, 2 wrong usage, 42 preempted after saving."""
    arguments = parser().parse_args(argv)
    if getattr(arguments, "compiles", True):
        caches.keep_compiled_programs()
    _find_modules_here()
    try:
        with _log_to_stderr(quiet=getattr(arguments, "quiet", False)), _without_inherited_backend():
            exit_code, message = _run(arguments)
    except Exception as error:
        traceback.print_exc()
        distributed.abort(1, first_line(error))
        raise
    if message and (exit_code != Preempted.exit_code or distributed.is_primary()):
        print(f"\ngpicl: {message}", file=sys.stderr)
    if exit_code in (0, Preempted.exit_code):
        distributed.disconnect()
    else:
        distributed.abort(exit_code, message)
    return exit_code


def _run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Runs a command. Returns its exit code and, unless that is 0, a line with the reason."""
    try:
        arguments.command(arguments)
    except Preempted as error:
        return error.exit_code, str(error)
    except GpiclError as error:
        return error.exit_code, f"error: {brief(str(error))}"
    except ValueError as error:
        refused = backend.environment_error(error)
        if refused is None:
            raise
        return refused.exit_code, f"error: {refused}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    except BrokenPipeError:  # the reader of a table, such as `head`, has seen enough; everything else was done before
        sys.stderr.close()
    except (
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
        FileExistsError,
        ImportError,
    ) as error:  # including errors of the libraries for gs://
        return 2, f"error: {error}"
    except OSError as error:
        full = "; free some, and start the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return 1, f"error: {error}{full}"
    return 0, ""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of `gpicl` and all its subcommands."""
    parser = argparse.ArgumentParser(
        prog="gpicl",
        description="Meta-train sequence models that learn new tasks from context alone, and study what makes them do "
        "so.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong usage; 42 preempted after saving (start the same command again).",
    )
    parser.add_argument("--version", action="version", version=f"gpicl_flax {gpicl_flax.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for command in COMMANDS:
        command.add(commands)
    return parser


def _find_modules_here() -> None:
    """Lets gin files import modules of the working folder, unless an installed module has the same name."""
    with contextlib.suppress(FileNotFoundError):  # the working folder was deleted
        if os.getcwd() not in sys.path and not sys.flags.safe_path:
            sys.path.append(os.getcwd())


@contextlib.contextmanager
def _without_inherited_backend() -> Iterator[None]:
    """Hides the backend of matplotlib that a notebook exports to its commands, which only draw files."""
    inherited = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if inherited is not None:
            os.environ["MPLBACKEND"] = inherited


@contextlib.contextmanager
def _log_to_stderr(*, quiet: bool) -> Iterator[None]:
    """Logs messages of the package as plain lines, only warnings if `quiet`. Other packages log as usual.

    Only the primary process logs messages below errors.
    """

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            kind = "" if record.levelno < logging.WARNING else "warning: "
            return f"{progress.erase(handler.stream)}{kind}{record.getMessage()}"

    logger, handler = logging.getLogger(gpicl_flax.__name__), logging.StreamHandler()
    handler.setFormatter(Formatter())
    handler.addFilter(lambda record: distributed.is_primary() or record.levelno > logging.WARNING)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False  # some libraries give the root logger their own handler
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
