"""Reads one image file, and refuses one that holds more than its pixels in 8 bits would show."""

import pathlib
import warnings
from typing import NamedTuple

import numpy as np

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets import paths

SUFFIXES = (".png", ".jpg", ".jpeg")
# Modes of PIL. Black and white counts as grey, a palette as colour.
_GREY, _COLOUR = ("1", "L"), ("P", "RGB")
_ORIENTATION = 0x112  # the tag of EXIF
_PNG_DEPTH = 24  # the place of the bits of a channel in a PNG file

# Remarks: clauses about files of which not everything is used.
UPRIGHT = "were turned upright, as their EXIF data say"
PROFILE = "have a colour profile other than sRGB, which is not applied"
DAMAGED = "have damaged EXIF data, and may not be upright"
FIRST = "hold several pictures, of which the first is read"


class ImageFile(NamedTuple):
    """The content of an image file.

    Attributes:
      pixels: [height, width] if grey, otherwise [height, width, 3]; uint8, upright.
      remarks: what a user may want to know of it.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...]


def read(path: pathlib.Path) -> ImageFile:
    """Reads a PNG or JPEG image, whatever its name.

    Raises:
      UsageError: it cannot be read, or would lose depth, transparency or frames.
    """
    from PIL import Image

    paths.check_file(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)  # about EXIF data
            warnings.simplefilter("ignore", RuntimeWarning)  # about large images
            with Image.open(path) as image:
                lost = _lost(image, path)
                if lost is None:
                    return _upright(image, caught)
    except Exception as error:  # PIL raises many kinds
        raise UsageError(f"{path}: not a readable image ({one_line(error)})") from error
    raise UsageError(f"{path}: an image {lost}; convert it to 8-bit grey or RGB without transparency, as PNG or JPEG")


def _lost(image, path: pathlib.Path) -> str | None:
    """Returns a clause about what an opened image would lose, or None."""
    if image.format not in ("PNG", "JPEG", "MPO"):
        return f"in the format {image.format}"
    if image.mode not in _GREY + _COLOUR:
        return f"of mode {image.mode}"
    if image.has_transparency_data:
        return "with transparent colours"
    if image.format == "PNG":
        with path.open("rb") as file:
            if file.read(_PNG_DEPTH + 1)[_PNG_DEPTH] > 8:
                return "of 16 bits a channel"
        if getattr(image, "n_frames", 1) > 1:
            return f"of {image.n_frames} frames"
    return None


def _upright(image, caught: list[warnings.WarningMessage]) -> ImageFile:
    """Returns the content of an opened image, of which PIL has given the warnings in `caught`."""
    from PIL import ImageOps

    image.load()
    try:
        orientation, damaged = image.getexif().get(_ORIENTATION), bool(caught)
    except Exception:  # PIL raises many kinds
        orientation, damaged = None, True
    turned = orientation in range(2, 9)
    upright = ImageOps.exif_transpose(image) if turned else image
    remarks = {
        UPRIGHT: turned,
        DAMAGED: orientation is None and damaged,
        PROFILE: _has_other_profile(image),
        FIRST: image.format == "MPO",
    }
    pixels = np.asarray(upright.convert("L" if image.mode in _GREY else "RGB"))
    return ImageFile(pixels, tuple(remark for remark, holds in remarks.items() if holds))


def _has_other_profile(image) -> bool:
    profile = image.info.get("icc_profile") or b"sRGB"
    return b"sRGB" not in profile and "sRGB".encode("utf-16-be") not in profile  # as versions 2 and 4 write names
