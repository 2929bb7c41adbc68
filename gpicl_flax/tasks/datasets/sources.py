"""Finds the raw arrays of a base dataset by its name."""

import os
import pathlib
from typing import Any

import numpy as np
from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import files, random_points, tfds_store
from gpicl_flax.tasks.datasets.raw import BUILT_IN, NOT_READ, RawDataset, RawSplit

NUM_DIGITS_TEST = 360


def load(
    name: str, *, input_shape: tuple[int, ...] | None = None, data_dir: str | None = None, with_test: bool = True
) -> RawDataset:
    """Reads the base dataset `name`.

    Args:
      name: 'digits'; 'random' or 'random_own_labels' (see `random_points`); the path of an .npz file, an idx folder or
        a folder of train/ and test/ class folders, where a folder's path contains a slash; or the name of a dataset
        that TFDS has or that was imported.
      input_shape: the shape of the random datasets; None: the paper's, 32x32x3.
      data_dir: where TFDS keeps datasets; None for its own default.
      with_test: read the test split as well; otherwise it is `NOT_READ`.

    Raises:
      UsageError: there is no such dataset, or it is not on this machine, or the file has the wrong content.
    """
    if name in BUILT_IN:  # made as a whole
        whole = _make(name, input_shape)
        return whole if with_test else whole._replace(test=NOT_READ)
    path = _as_path(name)
    return tfds_store.load(name, data_dir, with_test) if path is None else files.read_dataset(path, with_test)


def _make(name: str, input_shape: tuple[int, ...] | None) -> RawDataset:
    if name == "digits":
        return _read_digits()
    return random_points.make(tuple(input_shape or (32, 32, 3)), own_labels=name == "random_own_labels")


def locate(name: str, *, data_dir: str | None = None) -> tuple[str, epath.Path] | None:
    """Returns where the base dataset `name` is prepared; None if it is built in.

    The first result is its path below the folder of TFDS, the second the complete path.

    Raises:
      UsageError: it is not prepared, or is a path rather than a name.
    """
    if name in BUILT_IN:
        return None
    if _as_path(name) is not None:
        raise UsageError(
            f"base dataset {name!r} is a path, which other machines do not have; bring it under a name: `gpicl "
            "datasets import my_name --images ...` (or set TaskDistribution.data_dir where they all see it)"
        )
    return tfds_store.locate(name, data_dir)


def find(name: str) -> None:
    """Raises UsageError if the base dataset `name` is not on this machine, without reading it."""
    path = _as_path(name)
    if path is None:
        locate(name)
    elif not path.exists():
        raise UsageError(f"base dataset {name!r}: no such .npz file or folder")


def _as_path(name: str) -> pathlib.Path | None:
    """Returns the name of a base dataset as a path, if it is one."""
    path = pathlib.Path(os.path.expanduser(name))
    if path.suffix.lower() == ".npz" or name.startswith((".", "/", "~")) or ("/" in name and path.is_dir()):
        return path
    return None  # a name may also contain a slash: a TFDS dataset with a config, emnist/letters


def _read_digits() -> RawDataset:
    """Reads the 1,797 handwritten digits of scikit-learn, 8x8, split 1,437 / 360 by a fixed shuffle."""
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()  # its annotation lacks what it returns by default
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # grey values 0..16
    # The file is sorted by writer: without the shuffle, the test split would hold writers that are not trained on.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[NUM_DIGITS_TEST:], order[:NUM_DIGITS_TEST]
    return RawDataset(RawSplit(images[train], digits.target[train]), RawSplit(images[test], digits.target[test]))
