"""Reads folders with a folder of images for each class."""

import logging
import os
import pathlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import image_file
from gpicl_flax.tasks.datasets.raw import RawSplit

# Folders and files that systems, and not users, put beside images, in lower case.
_OF_THE_SYSTEM = {
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "desktop.ini"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__pycache__"),
}
# Images that are not read, where a folder of images is looked for.
_OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpe", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_NUM_NAMED = 5  # how many things of a kind a message names

logger = logging.getLogger(__name__)


def read(folder: pathlib.Path) -> tuple[RawSplit, tuple[str, ...]]:
    """Reads the PNG and JPEG images of a folder with a folder for each class: a split, and the names of its classes.

    Raises:
      UsageError: there are none, some lie in folders within a class, they differ in size or colour, or one of them
        cannot be read or would lose something.
    """
    classes = _classes(folder)
    found = [(path, label) for label, place in enumerate(classes.values()) for path in _files(place)]
    chosen = [(path, label) for path, label in found if path.suffix.lower() in image_file.SUFFIXES]
    if not chosen:
        raise UsageError(f"{folder}: no folders of PNG or JPEG images, one for each class")
    _say_what_is_left_out(folder, [path for path, _ in found], {path for path, _ in chosen})
    empty = sorted(set(range(len(classes))) - {label for _, label in chosen})
    if empty:
        logger.warning("%s: no image of class %s", folder, _named([[*classes][label] for label in empty]))
    images, remarks = [], defaultdict(list)
    for path, _ in chosen:
        image = image_file.read(path)
        for remark in image.remarks:
            remarks[remark].append(path)
        images.append(image.pixels)
        if images[-1].shape != images[0].shape:
            raise UsageError(
                f"{folder}: images must have one size and be all grey or all colour, which a palette is; "
                f"{_shape(chosen[0][0], images[0], folder)}, {_shape(path, images[-1], folder)}"
            )
    for remark, those in remarks.items():
        logger.warning("%s: %d image(s) %s, such as %s", folder, len(those), remark, those[0].relative_to(folder))
    return RawSplit(np.stack(images), np.array([label for _, label in chosen])), tuple(classes)


def warn_of_others(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Logs a warning if a folder holds other folders than those of these names, whose images are not read."""
    others = sorted(path.name for path in _visible(folder) if path.is_dir() and path.name not in names)
    if others:
        logger.warning("%s: only %s are read; left out: %s", folder, " and ".join(names), _named(others))


def _classes(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folders of the classes by their names, in the order of these.

    Raises:
      UsageError: a name cannot be used, or two are the same.
    """
    classes: dict[str, pathlib.Path] = {}
    for path in _visible(folder):
        name = unicodedata.normalize("NFC", path.name)  # file systems write one accent in two ways
        if not path.is_dir():
            continue
        if name != name.strip() or len(name.splitlines()) != 1 or not _is_utf8(name):
            raise UsageError(
                f"{folder}: names of classes cannot begin or end with a space, nor hold a line break or what is not "
                f"UTF-8: {name!r}"
            )
        if name in classes:
            raise UsageError(
                f"{folder}: two class folders have the name {name!r}, with its accents written in two ways"
            )
        classes[name] = path
    by_lower_case = defaultdict(list)
    for name in sorted(classes):
        by_lower_case[name.casefold()].append(name)
    alike = [" and ".join(map(repr, names)) for names in by_lower_case.values() if len(names) > 1]
    if alike:
        logger.warning("%s: names of classes differ only in case: %s", folder, _named(alike))
    return {name: classes[name] for name in sorted(classes)}


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a class; raises UsageError if images lie in a folder within it."""
    found = sorted(_visible(place))
    for nested in filter(pathlib.Path.is_dir, found):
        suffixes = (*image_file.SUFFIXES, *_OTHER_SUFFIXES)
        walk = os.walk(nested)  # follows no links
        images = [name for _, _, names in walk for name in names if name.lower().endswith(suffixes) and name[0] != "."]
        if images:
            raise UsageError(
                f"{nested}: holds {len(images)} image(s), in a folder within the class {place.name!r}; move them into "
                "the folder of the class, or elsewhere"
            )
    return [path for path in found if not path.is_dir()]


def _say_what_is_left_out(folder: pathlib.Path, found: Sequence[pathlib.Path], chosen: set[pathlib.Path]) -> None:
    beside = [path for path in _visible(folder) if not path.is_dir()]
    left_out = [path for path in (*found, *beside) if path not in chosen]
    kinds = Counter(f"{path.suffix.lower() or 'without suffix'} in {path.parent.name}" for path in left_out)
    if left_out:
        logger.warning(
            "%s: %d file(s) that are no PNG or JPEG images of a class were left out: %s",
            folder,
            len(left_out),
            _named([f"{count} {kind}" for kind, count in kinds.most_common()]),
        )


def _shape(path: pathlib.Path, image: np.ndarray, folder: pathlib.Path) -> str:
    return f"{path.relative_to(folder)} is {list(image.shape)}"


def _named(things: Sequence[str]) -> str:
    more = f" and {len(things) - _NUM_NAMED} more" if len(things) > _NUM_NAMED else ""
    return f"{', '.join(things[:_NUM_NAMED])}{more}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what users put into a folder."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.casefold() not in _OF_THE_SYSTEM
    ]
