"""Import: converts a user's files to a dataset that TFDS can open."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import checks, class_folder, files, tfds_store
from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit


def import_dataset(
    name: str,
    images: Sequence[str],
    labels: Sequence[str] = (),
    *,
    test_fraction: float | None = None,
    data_dir: str | None = None,
) -> epath.Path:
    """Reads images and labels, checks them, and writes them as the TFDS dataset `name`.

    Args:
      name: the name of the new dataset.
      images: paths of the training and the test images, or a single path of both (a complete .npz file or folder). With
        a `test_fraction`: a single path of all images. With labels they are arrays, without them folders of class
        folders.
      labels: as many paths of labels.
      data_dir: where TFDS keeps datasets; None for its own default.
      test_fraction: the fraction of the examples, drawn at random, that becomes the test split.

    Returns:
      The folder of the dataset.

    Raises:
      UsageError: the name or the paths cannot be used, the files are damaged, the data cannot be trained on, or they
        cannot be written. In these cases nothing remains.
    """
    tfds_store.check_name(name, data_dir)
    raw = checks.check(f"dataset {name!r}", _read(images, labels, test_fraction))
    train, test = raw.train.array, raw.test.array
    if train.shape[1:] != test.shape[1:]:
        raise UsageError(
            f"train images are {list(train.shape[1:])}, test images {list(test.shape[1:])}; they must have one size"
        )
    checks.check_varied(f"dataset {name!r}", train)
    num_classes = len(raw.class_names or ()) or 1 + int(max(raw.train.labels.max(), raw.test.labels.max()))
    checks.warn(f"dataset {name!r}", raw.train, raw.test, num_classes)
    came_from = ", ".join([*images, *labels])
    return tfds_store.write(name, raw, data_dir, description=f"Imported by gpicl_flax from {came_from}.")


def _read(images: Sequence[str], labels: Sequence[str], test_fraction: float | None) -> RawDataset:
    image_paths, label_paths = (
        [pathlib.Path(os.path.expanduser(path)) for path in paths] for paths in (images, labels)
    )
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise UsageError(f"the test fraction must lie between 0 and 1, not {test_fraction}")
    if label_paths and len(label_paths) != len(image_paths):
        raise UsageError(f"{len(image_paths)} path(s) of images but {len(label_paths)} of labels")
    expected = 2 if test_fraction is None else 1
    complete = not label_paths and test_fraction is None and len(image_paths) == 1
    if complete:
        return files.read_dataset(image_paths[0])
    if len(image_paths) != expected:
        raise UsageError(
            "give the paths of training and test images, or one path and a test fraction"
            if test_fraction is None
            else "with a test fraction, give one path of images"
        )
    class_names = None
    if label_paths:
        splits = [
            RawSplit(files.read_array(x, "images"), files.read_array(y, "labels"))
            for x, y in zip(image_paths, label_paths, strict=True)
        ]
    else:
        missing = next((path for path in image_paths if not path.is_dir()), None)
        if missing is not None:
            raise UsageError(f"{missing} is no folder of class folders; give the labels of other images, too")
        named = [class_folder.read(path) for path in image_paths]
        splits = [split for split, _ in named]
        class_names = named[0][1] if len(named) == 1 else files.join(*named).class_names
    train, test = splits if test_fraction is None else _divide(splits[0], test_fraction)
    return RawDataset(train, test, class_names)


def _divide(split: RawSplit, test_fraction: float) -> tuple[RawSplit, RawSplit]:
    """Divides a split into train and test by a fixed shuffle."""
    inputs, labels = split.array, split.labels
    if inputs.shape[:1] != labels.shape or not labels.size:
        raise UsageError(f"images of shape {list(inputs.shape)} and labels of shape {list(labels.shape)}")
    order = np.random.default_rng(0).permutation(len(labels))
    num_test = round(test_fraction * len(order))
    train, test = np.sort(order[num_test:]), np.sort(order[:num_test])
    return RawSplit(inputs[train], labels[train]), RawSplit(inputs[test], labels[test])
