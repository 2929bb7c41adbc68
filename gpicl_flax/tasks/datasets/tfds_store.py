"""Datasets of TFDS: reads them without TensorFlow, prepares them with it, and writes those of the user.

A dataset that is written here is an ordinary TFDS dataset in the array_record format, in <data_dir>/<name>/<version>,
which `tfds.builder_from_directory` opens anywhere.
"""

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from gpicl_flax.errors import GpiclError, UsageError, first_line
from gpicl_flax.tasks.datasets import array_cache
from gpicl_flax.tasks.datasets.raw import BUILT_IN, NOT_READ, RawDataset, RawSplit
from gpicl_flax.terminal import library_logs

logger = logging.getLogger(__name__)

VERSION = "1.0.0"
FEATURES = "features"
_COMMUNITY = re.compile(r"[^:]*:[^0-9*]")  # namespace:name, and not name:version
_CLASS = re.compile(r'"pythonClassName"\s*:\s*"([^"]*)"')
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def data_dir_or_default(data_dir: str | None) -> epath.Path:
    """Returns the folder of TFDS, local or gs://: the one given, or $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return epath.Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


def load(name: str, data_dir: str | None, with_test: bool = True) -> RawDataset:
    """Reads the splits train and test of a prepared dataset, without TensorFlow.

    Args:
      name: the name of the dataset.
      data_dir: where TFDS keeps datasets; None for its own default.
      with_test: read the test split as well.

    Raises:
      UsageError: TFDS has no such dataset, it is not prepared, or its files are damaged.
    """
    builder, inputs = _open(name, data_dir)
    try:
        train = _read_split(builder, "train", inputs)
        test = _read_split(builder, "test", inputs) if with_test else NOT_READ
    except NotImplementedError as error:  # TFDS raises it for files in its TFRECORD format
        raise UsageError(f"base dataset {name!r} in {builder.data_dir} is not in the array_record format") from error
    except Exception as error:  # its readers raise many kinds for files that are missing or cut off
        raise UsageError(f"base dataset {name!r} in {builder.data_dir} cannot be read ({first_line(error)})") from error
    return RawDataset(train, test, class_names=_class_names(builder.info.features["label"]))


def _read_split(builder: Any, split: str, inputs: str) -> RawSplit:
    """Returns a split, from the cache of arrays where that has it."""
    folder = pathlib.Path(builder.data_dir)
    found = array_cache.load(folder, split)
    if found is None:
        with _quiet_tfds():
            found = _decode(builder.as_data_source(split=split), inputs)
        if isinstance(found.inputs, np.ndarray) and found.inputs.dtype == np.uint8:  # nothing else takes long
            array_cache.save(folder, split, found)
    return found


class NotPrepared(UsageError):
    """A dataset of TFDS that is not prepared on this machine."""


def locate(name: str, data_dir: str | None) -> tuple[str, epath.Path]:
    """Returns the folder of a prepared dataset, with all its versions.

    The first result is its path below the folder of TFDS, the second the complete path.

    Raises:
      UsageError: TFDS has no such dataset, or (`NotPrepared`) it is not prepared.
    """
    builder, _ = _open(name, data_dir)
    folder = epath.Path(builder.data_dir).parent
    return folder.relative_to(data_dir_or_default(data_dir)).as_posix(), folder


def _open(name: str, data_dir: str | None) -> tuple[Any, str]:
    """Returns the TFDS builder of a prepared dataset, and the name of its inputs among its features.

    The builder has no type, because TFDS annotates its members too widely.
    """
    import tensorflow_datasets as tfds

    folder = data_dir_or_default(data_dir)
    _check_runs_no_code(name, folder)
    try:
        builder: Any = tfds.builder(name, data_dir=str(folder))
    except Exception as error:  # the dataset's own code, and the search of TFDS for it, can raise anything
        if (folder / name).exists():
            raise UsageError(f"base dataset {name!r} in {folder} cannot be read ({first_line(error)})") from error
        raise UsageError(
            f"unknown base dataset {name!r} ({type(error).__name__}), also not imported into {folder}: give one of "
            "`gpicl datasets list`, a TFDS image classification dataset, the path of an .npz file or a folder of idx "
            "files"
        ) from error
    given = set(builder.info.features or ())
    inputs = FEATURES if FEATURES in given else "image"
    if given and not {inputs, "label"} <= given:
        raise UsageError(f"base dataset {name!r} has no 'image' and 'label' (it has {', '.join(given)})")
    if builder.info.splits and not {"train", "test"} <= set(builder.info.splits):
        raise UsageError(
            f"base dataset {name!r} has no splits train and test (it has {', '.join(builder.info.splits)})"
        )
    if not builder.info.splits:
        raise NotPrepared(
            f"base dataset {name!r} is not prepared in {builder.data_dir}. Prepare it where "
            f"there is a network (`gpicl datasets prepare {name}`) and copy that folder here, or bring its files under "
            "another name: `gpicl datasets import my_name --images ... --labels ...`"
        )
    return builder, inputs


def _check_runs_no_code(name: str, folder: epath.Path) -> None:
    """Raises UsageError if TFDS would import code for a dataset: data and names may come with a run from elsewhere.

    TFDS imports the modules of all classes that features.json names, and those of community datasets.
    """
    if _COMMUNITY.match(name):
        raise UsageError(
            f"base dataset {name!r} is one of a TFDS community, whose code would be run; prepare it yourself, then "
            "import its files"
        )
    own = folder / name.partition(":")[0]
    for path in own.glob("*/features.json") if own.exists() else ():
        foreign = [each for each in _CLASS.findall(path.read_text()) if not each.startswith("tensorflow_datasets.")]
        if foreign:
            raise UsageError(f"{path} names the class {foreign[0][:80]}, which is not of TFDS: its module would be run")


def _decode(source, inputs: str) -> RawSplit:
    """Returns all examples of a TFDS data source, whose inputs are its feature `inputs`."""
    examples = [(example[inputs], example["label"]) for example in source]
    arrays = [array for array, _ in examples]
    same_size = len({array.shape for array in arrays}) == 1
    return RawSplit(np.stack(arrays) if same_size else arrays, np.asarray([label for _, label in examples]))


def _class_names(label) -> tuple[str, ...] | None:
    names = getattr(label, "names", None)  # a plain integer has none
    return tuple(names) if names else None


def prepare(name: str, data_dir: str | None) -> epath.Path:
    """Downloads a TFDS dataset and prepares it in the array_record format, with TFDS's own progress bars.

    Raises:
      UsageError: TensorFlow is missing, or TFDS has no such dataset.
      GpiclError: the download or the preparation failed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            f"preparing {name!r} needs TensorFlow, which TFDS unpacks downloads with; install gpicl_flax with the "
            "extra `tensorboard`, or bring the files: `gpicl datasets import my_name --images ... --labels ...`"
        )
    import tensorflow_datasets as tfds

    folder = data_dir_or_default(data_dir)
    try:
        builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
    except Exception as error:
        raise UsageError(f"unknown TFDS dataset {name!r} ({first_line(error)})") from error
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each of TFDS's ten attempts at every file
    try:
        builder.download_and_prepare()
    except Exception as error:  # the network, a server, a checksum and the disk each raise their own exceptions
        raise GpiclError(
            f"{name!r} could not be prepared in {folder} ({first_line(error)}); without a network, bring its files: "
            "`gpicl datasets import my_name --images ... --labels ...`"
        ) from error
    return epath.Path(builder.data_dir)


def check_name(name: str, data_dir: str | None) -> None:
    """Raises UsageError unless a new dataset can have this name."""
    import tensorflow_datasets as tfds

    if not _NAME.fullmatch(name):
        raise UsageError(f"a dataset's name is made of a-z, 0-9 and _, and begins with a letter; not {name!r}")
    if name in BUILT_IN or name in tfds.list_builders(with_community_datasets=False):
        raise UsageError(f"{name!r} is the name of a dataset that is known already; choose another, such as my_{name}")
    existing = data_dir_or_default(data_dir) / name
    if existing.exists():
        raise UsageError(f"{existing} exists already; choose another name, or remove that folder first")


def write(name: str, dataset: RawDataset, data_dir: str | None, *, description: str) -> epath.Path:
    """Writes a dataset of images or features for `read`, `tfds.builder` and `tfds.builder_from_directory`.

    It is written next to its final location and moved there at the end, so that it is complete once it is there. If an
    error, Ctrl-C or SIGTERM interrupts it, nothing remains. It needs no TensorFlow.

    Args:
      name: the name of the dataset.
      dataset: images [n, height, width, channels] uint8 of one size, or features [n, X] float32.
      data_dir: where TFDS keeps datasets; None for its own default.
      description: a text about the dataset.

    Raises:
      UsageError: the name cannot be used, or the files cannot be written.
    """
    check_name(name, data_dir)
    if dataset.group_size is not None:
        raise UsageError(f"{name!r} would be made of groups of examples, which a TFDS dataset does not know of")
    inputs = dataset.train.array
    if inputs.ndim == 4 and inputs.shape[3] not in (1, 3):
        raise UsageError(
            f"{name!r}: images of {inputs.shape[3]} channels, {list(inputs.shape[1:])}; they must have one, or three "
            "at the end"
        )
    folder = data_dir_or_default(data_dir)
    logger.info("writing %s examples to %s", f"{len(dataset.train.labels) + len(dataset.test.labels):,}", folder / name)
    try:
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (
                _sigterm_raises(),
                _quiet_tfds(),
                tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as temporary,
            ):
                _builder(name, dataset, description)(
                    data_dir=temporary, file_format="array_record"
                ).download_and_prepare()
                (pathlib.Path(temporary) / name).rename(folder / name)
        except BaseException:
            _remove_empty(made)
            raise
    except (KeyboardInterrupt, GpiclError):
        raise
    except Exception as error:  # for a full disk or a lack of permission, TFDS and array_record have several kinds
        raise UsageError(
            f"{name!r} could not be written to {folder} ({first_line(error)}); nothing was kept"
        ) from error
    return folder / name / VERSION


def _remove_empty(folders: Sequence[epath.Path]) -> None:
    # The inner ones come first. Folders in which someone has put files remain.
    with contextlib.suppress(OSError):
        for folder in folders:
            os.rmdir(folder)


def _builder(name: str, dataset: RawDataset, description: str):
    """Returns the class of a TFDS builder that yields the examples of `dataset` in their order."""
    import tensorflow_datasets as tfds
    from PIL import Image

    inputs = dataset.train.array
    is_image = inputs.ndim == 4
    if is_image:
        feature = tfds.features.Image(shape=inputs.shape[1:])
    else:
        feature = tfds.features.Tensor(
            shape=inputs.shape[1:], dtype=inputs.dtype.type, encoding=tfds.features.Encoding.BYTES
        )
    num_classes = 1 + max(int(split.labels.max()) for split in (dataset.train, dataset.test))
    label = (
        tfds.features.ClassLabel(names=dataset.class_names)
        if dataset.class_names
        else tfds.features.ClassLabel(num_classes=num_classes)
    )
    key = "image" if is_image else FEATURES

    class Imported(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            features = tfds.features.FeaturesDict({key: feature, "label": label})
            # With the order kept, anyone can compare a dataset with the files it came from.
            return tfds.core.DatasetInfo(
                builder=self, description=description, features=features, disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(getattr(dataset, split)) for split in ("train", "test")}

        def _generate_examples(self, split):
            for number, (x, y) in enumerate(zip(*split, strict=True)):
                # PIL encodes a PIL image; TFDS would encode an array with TensorFlow.
                if is_image:
                    x = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
                yield number, {key: x, "label": int(y)}

    Imported.name = name
    return Imported


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keeps TFDS from logging messages that do not concern users.

    These are about downloads where there are none, temporary folders, and that OpenCV would decode faster.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), library_logs.only_errors():
            yield
    finally:
        tfds.enable_progress_bar()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM act like Ctrl-C, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        yield
        return

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
