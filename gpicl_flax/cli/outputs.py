"""Checks the places where commands write their results before the work, which would otherwise be lost."""

import errno
import os
import pathlib
import tempfile

from gpicl_flax.errors import UsageError

# Imports inside the functions keep `gpicl --help` instant.


def check_file(path: str) -> None:
    """Raises UsageError if no file can be written there: its folder is missing, say. Remote paths are not checked."""
    if "://" in path:
        return
    file = pathlib.Path(path)
    if file.is_dir():
        raise UsageError(f"{path}: is a folder, not a file")
    if not file.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {file.parent}; make it first")
    _check_writable(path, file if file.exists() else file.parent)


def check_folder(path: str) -> None:
    """Raises UsageError if no folder can be made or filled there."""
    if "://" in path:
        from gpicl_flax.records.run_folder import RunFolder
        from gpicl_flax.runtime import gcs

        gcs.check_rights(RunFolder(path).path)
        return
    folder = pathlib.Path(path).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UsageError(f"{path}: {existing} is no folder")
    _check_writable(path, existing)


def write_file(path: str, text: str) -> None:
    """Writes all of a file or nothing. What is a link, such as /dev/stdout, a pipe or a device is written directly."""
    from etils import epath

    from gpicl_flax.records.run_folder import write_atomically

    file = pathlib.Path(path)
    replaceable = not file.exists() or file.is_file() and os.access(file.parent, os.W_OK)
    if "://" in path or replaceable and not file.is_symlink():
        write_atomically(epath.Path(path), text)
    else:
        file.write_text(text, encoding="utf-8")


def _check_writable(path: str, existing: pathlib.Path) -> None:
    try:
        if existing.is_dir():
            tempfile.TemporaryFile(dir=existing).close()  # rights alone say nothing of file systems that take no files
        elif not os.access(existing, os.W_OK):
            raise PermissionError
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(f"{path}: {existing} cannot be written; choose another place") from error
