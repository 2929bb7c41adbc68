"""A cache of decoded images: 70,000 PNG files take many seconds to decode, but their pixels only a moment to read.

It holds a file for each split of a prepared dataset. The file is valid as long as the files of that split, and those
that describe the dataset, have the same beginnings and ends, sizes and modification times. Without the cache everything
works, but slower; deleting it loses nothing.
"""

import contextlib
import hashlib
import os
import pathlib
import tempfile

import numpy as np

from gpicl_flax.runtime import caches
from gpicl_flax.tasks.datasets.raw import RawSplit

_ENDS = 2**16  # bytes


def load(folder: pathlib.Path, split: str) -> RawSplit | None:
    """Returns what was decoded from a split of `folder` in its current state, or None."""
    with contextlib.suppress(Exception):  # numpy raises many kinds for a damaged file
        # NumPy does not close a damaged file that it has opened itself.
        with _file(folder, split).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["state"]) == _state(folder, split):
                return RawSplit(file["inputs"], file["labels"])
    return None


def save(folder: pathlib.Path, split: str, decoded: RawSplit) -> None:
    """Keeps what was decoded from a split of `folder`, if there is space for it."""
    path = _file(folder, split)
    with contextlib.suppress(OSError):  # no permission, or a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                np.savez(file, state=_state(folder, split), inputs=decoded.inputs, labels=decoded.labels)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _file(folder: pathlib.Path, split: str) -> pathlib.Path:
    name = hashlib.sha256(f"{folder.resolve()}/{split}".encode()).hexdigest()[:16]
    return caches.folder() / "arrays" / f"{name}.npz"


def _state(folder: pathlib.Path, split: str) -> str:
    """Returns a digest of the files of a folder, without those of the other split: <dataset>-<split>.<format>..."""
    other = {"train": "-test.", "test": "-train."}[split]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if other in path.name:
            continue
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, stat.st_size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()
