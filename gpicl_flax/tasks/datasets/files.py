"""Readers of the files that users bring.

These are npz and npy, idx in the distribution of MNIST, and folders with a folder for each class.
"""

import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets import class_folder, idx, paths
from gpicl_flax.tasks.datasets.raw import NOT_READ, RawDataset, RawSplit

NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")  # in the npz files of keras.datasets


def read_dataset(path: pathlib.Path, with_test: bool = True) -> RawDataset:
    """Reads both splits from an .npz file, a folder of idx files, or folders train/ and test/ of class folders.

    Args:
      path: that of the file or folder.
      with_test: read the test split as well.

    Raises:
      UsageError: nothing of this kind exists, or it is damaged.
    """
    if path.suffix.lower() == ".npz":
        return _read_npz_dataset(path, with_test)
    if not path.is_dir():
        raise UsageError(f"base dataset {str(path)!r}: no such .npz file or folder")
    if (path / "train").is_dir() and (path / "test").is_dir():
        class_folder.warn_of_others(path, ("train", "test"))
        if not with_test:
            train, names = class_folder.read(path / "train")
            return RawDataset(train, NOT_READ, names)
        return join(class_folder.read(path / "train"), class_folder.read(path / "test"))
    if not idx.holds_any(path):
        raise UsageError(
            f"{path}: holds neither idx files ({', '.join(idx.FILES)}) nor folders train and test of class folders"
            f"{idx.similar(path, idx.FILES[0])}"
        )
    paths_of_files = [idx.find(path, name) for name in idx.FILES]
    return _of_arrays([idx.read(file) for file in (paths_of_files if with_test else paths_of_files[:2])])


def read_array(path: pathlib.Path, kind: str) -> np.ndarray:
    """Reads one array from an .npy or idx file, or from an .npz file that holds one or has one named `kind`.

    Args:
      kind: 'images' or 'labels'.

    Raises:
      UsageError: there is no such file, or it is damaged.
    """
    paths.check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = read_npz(path)
        if kind not in arrays and len(arrays) != 1:
            raise UsageError(
                f"{path}: holds {', '.join(arrays) or 'no array'}; needed is one array, or one named {kind}"
            )
        return arrays.get(kind, next(iter(arrays.values())))
    if suffix == ".npy":
        try:
            with path.open("rb") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # numpy raises many kinds
            raise _unreadable(path, "npy", error) from error
    return idx.read(path)


def join(train: tuple[RawSplit, tuple[str, ...]], test: tuple[RawSplit, tuple[str, ...]]) -> RawDataset:
    """Returns a dataset of two class folders; raises UsageError if their classes are not the same."""
    if train[1] != test[1]:
        different = sorted(set(train[1]) ^ set(test[1]))
        raise UsageError(f"train and test have different class folders: {', '.join(different)} in one of them only")
    return RawDataset(train[0], test[0], train[1])


def _of_arrays(arrays: Sequence[np.ndarray]) -> RawDataset:
    """Returns the dataset of train inputs, train labels, and, where they were read, the same of the test split."""
    images, labels, *test = arrays
    return RawDataset(RawSplit(images, labels), RawSplit(*test) if test else NOT_READ)


def _read_npz_dataset(path: pathlib.Path, with_test: bool) -> RawDataset:
    def choose(found: Sequence[str]) -> Sequence[str]:
        keys = KERAS_KEYS if set(KERAS_KEYS) <= set(found) else NPZ_KEYS
        missing = [key for key in keys if key not in found]
        if missing:
            raise UsageError(
                f"{path}: no array named {', '.join(missing)}; needed are {', '.join(NPZ_KEYS)} (or "
                f"{', '.join(KERAS_KEYS)}), found are {', '.join(found) or 'none'}"
            )
        return keys if with_test else keys[:2]

    return _of_arrays([*read_npz(path, choose).values()])


def read_npz(path: pathlib.Path, choose: Callable[[Sequence[str]], Sequence[str]] = tuple) -> dict[str, np.ndarray]:
    """Returns arrays of an .npz file, by name.

    Args:
      path: that of the file.
      choose: given the names of its arrays, returns those to be read, in order.

    Raises:
      UsageError: it cannot be read.
    """
    paths.check_file(path)
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: not a readable .npz file (not a zip archive, or cut off)")
    try:
        # Opened here, because NumPy leaves the file open where it is damaged.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in choose(file.files)}
    except UsageError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds
        raise _unreadable(path, ".npz", error) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UsageError(f"{path}: not a readable .npz file (it holds other files than arrays)")
    return arrays


def _unreadable(path: pathlib.Path, kind: str, error: Exception) -> UsageError:
    if "allow_pickle" in str(error):
        return UsageError(f"{path}: holds Python objects, which are never unpickled; save plain arrays")
    return UsageError(f"{path}: not a readable {kind} file ({one_line(error)})")
