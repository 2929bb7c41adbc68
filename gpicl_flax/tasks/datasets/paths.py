"""Says what a path leads to. Reading a named pipe or a device as if it were a file could block for ever."""

import os
import pathlib
import stat

from gpicl_flax.errors import UsageError

_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)


def kind(path: str | os.PathLike) -> str:
    """Returns 'file', 'folder', 'pipe', 'socket' or 'device'.

    Raises:
      UsageError: there is nothing, or it cannot be reached.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # a ValueError: the name contains a zero byte
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "device")


def check_file(path: pathlib.Path) -> None:
    """Raises UsageError unless the path leads to a regular file."""
    found = kind(path)
    if found != "file":
        raise UsageError(f"{path}: is a {found}, not a file")
