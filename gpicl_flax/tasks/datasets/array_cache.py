"""A cache of decoded images: 70,000 PNG files take many seconds to decode, but their pixels only a moment to read.

It holds a file for each folder of a prepared dataset. The file is valid as long as the files of that folder have the
same beginnings and ends, sizes and modification times. Without the cache everything works, but slower; deleting it
loses nothing.
"""

import contextlib
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from gpicl_flax.runtime import caches
from gpicl_flax.tasks.datasets.raw import RawSplit

_ENDS = 2**16  # bytes


def load(folder: pathlib.Path) -> list[RawSplit] | None:
    """Returns the splits that were decoded from `folder` in its current state, or None."""
    with contextlib.suppress(Exception):  # numpy raises many kinds for a damaged file
        # NumPy does not close a damaged file that it has opened itself.
        with _file(folder).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["state"]) == _state(folder):
                count = sum(name.startswith("inputs") for name in file)
                return [RawSplit(file[f"inputs_{i}"], file[f"labels_{i}"]) for i in range(count)]
    return None


def save(folder: pathlib.Path, splits: Sequence[RawSplit]) -> None:
    """Keeps splits that were decoded from `folder`, if there is space for them."""
    arrays = {f"{name}_{i}": array for i, split in enumerate(splits) for name, array in split._asdict().items()}
    path = _file(folder)
    with contextlib.suppress(OSError):  # no permission, or a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                np.savez(file, state=_state(folder), **arrays)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _file(folder: pathlib.Path) -> pathlib.Path:
    return caches.folder() / "arrays" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.npz"


def _state(folder: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, stat.st_size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()
