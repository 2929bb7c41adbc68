"""Readers of base datasets: scikit-learn's digits, TFDS, npz files and idx folders, all as uint8 images."""

import gzip
import pathlib
import struct
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from gpicl_flax.errors import UsageError

NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NUM_DIGITS_TEST = 360


class RawDataset(NamedTuple):
    """Images [n, height, width(, channels)] and labels [n] of both splits, as a source gave them: not yet checked.

    Images of several sizes are a list of [height, width, channels].
    """

    train_images: np.ndarray | list[np.ndarray]
    train_labels: np.ndarray
    test_images: np.ndarray | list[np.ndarray]
    test_labels: np.ndarray


def read(name: str, data_dir: str | None = None) -> RawDataset:
    """Reads the base dataset `name`: 'digits', the path of an .npz file or idx folder, or a TFDS name.

    Raises:
      UsageError: there is no such dataset, or it is not on this machine, or the file is not what it should be.
    """
    path = pathlib.Path(name)
    if name == "digits":
        return _read_digits()
    if path.suffix == ".npz":
        return _read_npz(path)
    if name.startswith((".", "/", "~")) or (name and path.is_dir()):
        return _read_idx_folder(path)
    return _read_tfds(name, data_dir)  # a name with a slash is a TFDS dataset with a config: emnist/letters


def _read_digits() -> RawDataset:
    """The 1,797 handwritten digits that scikit-learn ships, 8x8, split 1,437 / 360 by a fixed shuffle."""
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # grey values 0..16
    # The file is sorted by writer: without the shuffle the test split would hold writers never trained on.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[NUM_DIGITS_TEST:], order[:NUM_DIGITS_TEST]
    return RawDataset(images[train], digits.target[train], images[test], digits.target[test])


def _read_npz(path: pathlib.Path) -> RawDataset:
    if not path.is_file():
        raise UsageError(f"base dataset {str(path)!r}: no such file")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: not a readable .npz file (not a zip archive, or cut off)")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in NPZ_KEYS if key not in file]
            if missing:
                raise UsageError(
                    f"{path}: no array named {', '.join(missing)}; needed are {', '.join(NPZ_KEYS)}, "
                    f"found are {', '.join(file) or 'none'}"
                )
            arrays = RawDataset(*(file[key] for key in NPZ_KEYS))
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise ValueError("it holds other files than arrays")
            return arrays
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise UsageError(f"{path}: holds Python objects, which are never unpickled; save plain arrays") from error
        raise UsageError(f"{path}: not a readable .npz file ({error})") from error


def _read_idx_folder(folder: pathlib.Path) -> RawDataset:
    if not folder.is_dir():
        raise UsageError(f"base dataset {str(folder)!r}: no such .npz file or folder")
    return RawDataset(*(_read_idx(folder, name) for name in IDX_FILES))


def _read_idx(folder: pathlib.Path, name: str) -> np.ndarray:
    """One idx file of unsigned bytes, plain or gzipped, as the MNIST family distributes them."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise UsageError(f"{folder}: holds no {name} or {name}.gz; an idx folder has {', '.join(IDX_FILES)}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, ndim = struct.unpack_from(">HBB", data)
        if zeros or kind != 8:  # 8 is the code of unsigned bytes
            raise ValueError("its first bytes are not those of an idx file of unsigned bytes")
        shape = struct.unpack_from(f">{ndim}I", data, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UsageError(f"{path}: not a readable idx file ({error})") from error


def _read_tfds(name: str, data_dir: str | None) -> RawDataset:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # whatever the dataset's own code, or TFDS's search for it, raises
        raise UsageError(
            f"unknown base dataset {name!r} ({type(error).__name__}): give 'digits', a TFDS image classification dataset, "
            "the path of an .npz file or the folder of idx files"
        ) from error
    features = builder.info.features
    if features is not None and not {"image", "label"} <= set(features):
        raise UsageError(f"base dataset {name!r} has no 'image' and 'label' (it has {', '.join(features)})")
    if not {"train", "test"} <= set(builder.info.splits):
        raise UsageError(
            f"base dataset {name!r} is not prepared (with splits train and test) in {builder.data_dir}; prepare it with "
            f"`tfds build {name} --file_format=array_record` where there is a network and TensorFlow, and copy it here"
        )
    arrays = []
    try:
        for split in ("train", "test"):
            examples = [(e["image"], e["label"]) for e in builder.as_data_source(split=split)]
            images = [image for image, _ in examples]
            same_size = len({image.shape for image in images}) == 1
            arrays += [np.stack(images) if same_size else images, np.asarray([label for _, label in examples])]
    except NotImplementedError as error:  # what TFDS raises for files in its TFRECORD format
        raise UsageError(f"base dataset {name!r} in {builder.data_dir} is not in the array_record format") from error
    except Exception as error:  # its readers raise many kinds, for files that are missing or cut off
        reason = str(error).strip().split("\n")[0]
        raise UsageError(f"base dataset {name!r} in {builder.data_dir} cannot be read ({reason})") from error
    return RawDataset(*arrays)
