"""Reads idx files of unsigned bytes, the form in which MNIST and datasets like it are published."""

import gzip
import math
import pathlib
import struct

import numpy as np

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets import paths

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_GZIP, _UNSIGNED_BYTES = b"\x1f\x8b", 8


def holds_any(folder: pathlib.Path) -> bool:
    """Whether a folder holds one of the four files."""
    return any(_paths(folder, name) for name in FILES)


def find(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of one of `FILES`: plain or gzipped, also under the names that Kaggle gives it.

    Raises:
      UsageError: the folder does not hold it.
    """
    found = _paths(folder, name)
    if not found:
        raise UsageError(f"{folder}: holds no {name} or {name}.gz{similar(folder, name)}")
    return found[0]


def similar(folder: pathlib.Path, name: str) -> str:
    """Returns a clause that names a file which could be one of `FILES` under another name, or ''."""
    words = ("t10k", "test") if name.startswith("t10k") else ("train",)
    content = "image" if "images" in name else "label"
    for path in sorted(folder.iterdir()):
        found = path.name.lower()
        if content in found and any(word in found for word in words):
            return f"; if {path.name} is this file, rename it"
    return ""


def read(path: pathlib.Path) -> np.ndarray:
    """Reads one file, plain or gzipped.

    Raises:
      UsageError: it is damaged, or no idx file of unsigned bytes.
    """
    paths.check_file(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
        zeros, kind, ndim = struct.unpack_from(">HBB", data)
        if zeros or kind != _UNSIGNED_BYTES:
            raise ValueError("its first bytes are not those of an idx file of unsigned bytes")
        shape, start = struct.unpack_from(f">{ndim}I", data, offset=4), 4 + 4 * ndim
        if len(data) - start != math.prod(shape):
            raise ValueError(f"it has {len(data) - start:,} bytes of data, but a header for {math.prod(shape):,}")
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except Exception as error:  # gzip, zlib and struct raise many kinds
        raise UsageError(f"{path}: not a readable idx file ({one_line(error)})") from error


def _paths(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Returns the paths at which `name` is.

    Kaggle writes a dot for the last dash but one, and puts a file into a folder of its name.
    """
    names = (name, name.replace("-idx", ".idx"))
    places = (folder, *(folder / name for name in names))
    found = [place / f"{name}{suffix}" for place in places for name in names for suffix in ("", ".gz")]
    return [path for path in found if path.exists() and not path.is_dir()]
