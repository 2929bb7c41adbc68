"""What libraries log through absl, where it tells a user nothing."""

import contextlib
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Within it absl logs errors alone."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
