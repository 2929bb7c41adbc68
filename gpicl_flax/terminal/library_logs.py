"""Silences messages that libraries log through absl and that do not help users."""

import contextlib
import logging as python_logging
import pathlib
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


def hide_tracebacks(package: str) -> None:
    """Drops the tracebacks that a package logs of errors that it also raises. The error itself says what happened."""
    logging.get_absl_logger().addFilter(_OfErrors(package))


class _OfErrors(python_logging.Filter):
    """Drops records with an exception that come from a package."""

    def filter(self, record: python_logging.LogRecord) -> bool:
        return not (record.exc_info and self.name in pathlib.PurePath(record.pathname).parts)
