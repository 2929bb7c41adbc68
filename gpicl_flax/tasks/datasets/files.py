"""Readers of the files that users bring.

These are npz and npy, idx in the distribution of MNIST, and folders with a folder for each class.
"""

import gzip
import logging
import pathlib
import struct
import zipfile

import numpy as np

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit

NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")  # in the npz files of keras.datasets
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Modes of PIL. Black and white counts as grey, a palette as colour. Converting other modes would lose depth or
# transparency.
_GREY, _COLOUR = ("1", "L"), ("P", "RGB")

logger = logging.getLogger(__name__)


def read_dataset(path: pathlib.Path) -> RawDataset:
    """Reads both splits from an .npz file, a folder of idx files, or folders train/ and test/ of class folders.

    Raises:
      UsageError: nothing of this kind exists, or it is damaged.
    """
    if path.suffix == ".npz":
        return _read_npz_dataset(path)
    if not path.is_dir():
        raise UsageError(f"base dataset {str(path)!r}: no such .npz file or folder")
    if (path / "train").is_dir() and (path / "test").is_dir():
        return join(read_class_folder(path / "train"), read_class_folder(path / "test"))
    if not any((path / f"{name}{suffix}").is_file() for name in IDX_FILES for suffix in ("", ".gz")):
        raise UsageError(
            f"{path}: holds neither idx files ({', '.join(IDX_FILES)}) nor folders train and test of class folders"
        )
    images, labels, test_images, test_labels = (_read_idx(_find_idx(path, name)) for name in IDX_FILES)
    return RawDataset(RawSplit(images, labels), RawSplit(test_images, test_labels))


def read_array(path: pathlib.Path, kind: str) -> np.ndarray:
    """Reads one array from an .npy, .idx or idx.gz file, or from an .npz file that holds one or has one named `kind`.

    Args:
      kind: 'images' or 'labels'.

    Raises:
      UsageError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if kind not in arrays and len(arrays) != 1:
            raise UsageError(
                f"{path}: holds {', '.join(arrays) or 'no array'}; needed is one array, or one named {kind}"
            )
        return arrays.get(kind, next(iter(arrays.values())))
    if path.suffix == ".npy":
        try:
            with path.open("rb") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # numpy raises many kinds
            raise _unreadable(path, "npy", error) from error
    return _read_idx(path)


def read_class_folder(folder: pathlib.Path) -> tuple[RawSplit, tuple[str, ...]]:
    """Reads the PNG and JPEG images of a folder with a folder for each class: a split, and the names of its classes.

    Raises:
      UsageError: there are none, they differ in size or colour, or one of them cannot be read.
    """
    from PIL import Image

    names = sorted(path.name for path in _visible(folder) if path.is_dir())
    odd = [name for name in names if name != name.strip() or "\n" in name]
    if odd:
        raise UsageError(
            f"{folder}: names of classes cannot begin or end with a space, nor hold a line break: {odd[0]!r}"
        )
    found = [(path, label) for label, name in enumerate(names) for path in sorted(_visible(folder / name))]
    paths = [(path, label) for path, label in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise UsageError(f"{folder}: no folders of PNG or JPEG images, one for each class")
    if len(paths) < len(found):
        logger.warning("%s: %d file(s) that are no PNG or JPEG images were left out", folder, len(found) - len(paths))
    images = []
    for path, _ in paths:
        try:
            with Image.open(path) as image:
                mode = image.mode
                if mode in _GREY + _COLOUR:
                    images.append(np.asarray(image.convert("L" if mode in _GREY else "RGB")))
        except Exception as error:  # PIL raises many kinds
            raise UsageError(f"{path}: not a readable image ({one_line(error)})") from error
        if mode not in _GREY + _COLOUR:
            raise UsageError(f"{path}: an image of mode {mode}; convert it to 8-bit grey or RGB without transparency")
        if images[-1].shape != images[0].shape:
            raise UsageError(
                f"{folder}: images must have one size and be all grey or all colour; {paths[0][0]} is "
                f"{list(images[0].shape)}, {path} is {list(images[-1].shape)}"
            )
    return RawSplit(np.stack(images), np.array([label for _, label in paths])), tuple(names)


def join(train: tuple[RawSplit, tuple[str, ...]], test: tuple[RawSplit, tuple[str, ...]]) -> RawDataset:
    """Returns a dataset of two class folders; raises UsageError if their classes are not the same."""
    if train[1] != test[1]:
        different = sorted(set(train[1]) ^ set(test[1]))
        raise UsageError(f"train and test have different class folders: {', '.join(different)} in one of them only")
    return RawDataset(train[0], test[0], train[1])


def _read_npz_dataset(path: pathlib.Path) -> RawDataset:
    if not path.is_file():
        raise UsageError(f"base dataset {str(path)!r}: no such file")
    arrays = read_npz(path)
    keys = KERAS_KEYS if set(KERAS_KEYS) <= arrays.keys() else NPZ_KEYS
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise UsageError(
            f"{path}: no array named {', '.join(missing)}; needed are {', '.join(NPZ_KEYS)} (or "
            f"{', '.join(KERAS_KEYS)}), found are {', '.join(arrays) or 'none'}"
        )
    images, labels, test_images, test_labels = (arrays[key] for key in keys)
    return RawDataset(RawSplit(images, labels), RawSplit(test_images, test_labels))


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file, by name; raises UsageError if it cannot be read."""
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: not a readable .npz file (not a zip archive, or cut off)")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise _unreadable(path, ".npz", error) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UsageError(f"{path}: not a readable .npz file (it holds other files than arrays)")
    return arrays


def _find_idx(folder: pathlib.Path, name: str) -> pathlib.Path:
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise UsageError(f"{folder}: holds no {name} or {name}.gz; an idx folder has {', '.join(IDX_FILES)}")
    return path


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads one idx file of unsigned bytes, plain or gzipped."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, ndim = struct.unpack_from(">HBB", data)
        if zeros or kind != 8:  # 8 is the code of unsigned bytes
            raise ValueError("its first bytes are not those of an idx file of unsigned bytes")
        shape = struct.unpack_from(f">{ndim}I", data, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except Exception as error:  # gzip, zlib, struct and numpy raise many kinds
        raise _unreadable(path, "idx", error) from error


def _unreadable(path: pathlib.Path, kind: str, error: Exception) -> UsageError:
    if "allow_pickle" in str(error):
        return UsageError(f"{path}: holds Python objects, which are never unpickled; save plain arrays")
    return UsageError(f"{path}: not a readable {kind} file ({one_line(error)})")


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
