"""Silences messages that libraries log through absl and that do not help users."""

import contextlib
import logging as python_logging
import pathlib
import sys
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Lets absl log only errors."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def hide_messages_of(package: str) -> None:
    """Drops what a package logs below errors, and its tracebacks of errors that it also raises.

    Of one save that fails, Orbax logs a traceback, asyncio one for each array, and TensorStore calls back into a loop
    that is closed.
    """
    logging.get_absl_logger().addFilter(_OfPackage(package))
    python_logging.getLogger("asyncio").addFilter(lambda record: f"/{package}/" not in record.getMessage())
    # Either hook is called, by how TensorStore's threads come to the loop.
    raised, unraisable = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, where: None if _is_late(error) else raised(kind, error, where)
    sys.unraisablehook = lambda args: None if _is_late(args.exc_value) else unraisable(args)


def _is_late(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


class _OfPackage(python_logging.Filter):
    """Drops records of the package with its name, except errors without an exception."""

    def filter(self, record: python_logging.LogRecord) -> bool:
        ours = self.name in pathlib.PurePath(record.pathname).parts
        return not ours or record.levelno >= python_logging.ERROR and not record.exc_info
