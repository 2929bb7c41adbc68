"""Silences messages that libraries log through absl and that do not help users."""

import contextlib
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
