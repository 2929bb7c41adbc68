"""One image file: pixels upright, and nothing lost in silence."""

import socket
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from gpicl_flax.tasks.datasets import image_file


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8)


def png(pixels, depth, colour):
    """A PNG of any depth, from rows of bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("mode", "shape"), [("1", (5, 4)), ("L", (5, 4)), ("P", (5, 4, 3)), ("RGB", (5, 4, 3))])
def test_images_are_grey_or_colour(tmp_path, mode, shape):
    Image.fromarray(np.full((5, 4, 3), 255, np.uint8)).convert(mode).save(tmp_path / "1.png")
    found = image_file.read(tmp_path / "1.png")
    assert found.pixels.shape == shape and (found.pixels == 255).all() and found.remarks == ()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "CMYK"])
def test_modes_that_would_lose_something_are_refused(tmp_path, pixels, refused, mode):
    image = Image.fromarray(pixels.astype(np.uint16) * 200 if mode == "I;16" else pixels)
    path = tmp_path / ("1.jpg" if mode == "CMYK" else "1.png")
    (image if mode == "I;16" else image.convert(mode)).save(path)
    with Image.open(path) as image:
        mode = image.mode
    refused(lambda: image_file.read(path), f"{path.name}: an image of mode {mode}; convert it to 8-bit")


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_transparent_colours_are_refused(tmp_path, pixels, refused, mode):
    transparent = (0, 0, 0) if mode == "RGB" else 0
    Image.fromarray(pixels).convert(mode).save(tmp_path / "1.png", transparency=transparent)
    refused(lambda: image_file.read(tmp_path / "1.png"), "1.png: an image with transparent colours")


def test_sixteen_bits_of_colour_are_refused(tmp_path, pixels, refused):
    colour = np.stack([pixels] * 3, axis=-1)
    (tmp_path / "1.png").write_bytes(png(colour, 8, 2))
    np.testing.assert_array_equal(image_file.read(tmp_path / "1.png").pixels, colour)
    (tmp_path / "1.png").write_bytes(png(colour.astype(">u2") * 256 + 7, 16, 2))
    refused(lambda: image_file.read(tmp_path / "1.png"), "1.png: an image of 16 bits a channel")


def test_several_frames_are_refused(tmp_path, pixels, refused):
    frames = [Image.fromarray(np.roll(pixels, n)) for n in range(3)]
    frames[0].save(tmp_path / "1.png", save_all=True, append_images=frames[1:])
    refused(lambda: image_file.read(tmp_path / "1.png"), "1.png: an image of 3 frames")


def test_a_name_does_not_matter_but_the_format_does(tmp_path, pixels, refused):
    Image.fromarray(pixels).save(tmp_path / "1.JPG", format="PNG")
    np.testing.assert_array_equal(image_file.read(tmp_path / "1.JPG").pixels, pixels)
    for form in ("GIF", "BMP", "TIFF", "WEBP"):
        Image.fromarray(pixels).save(tmp_path / "1.png", format=form)
        refused(lambda form=form: image_file.read(tmp_path / "1.png"), f"1.png: an image in the format {form}")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path, orientation, suffix):
    upright = np.kron([[0, 0, 255], [0, 255, 255]], np.ones((8, 8))).astype(np.uint8)
    lying = {
        2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: np.transpose,
        6: np.rot90, 7: lambda x: np.rot90(x.T, 2), 8: lambda x: np.rot90(x, -1),
    }.get(orientation, lambda x: x)(upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(lying).save(tmp_path / f"1.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    found = image_file.read(tmp_path / f"1.{suffix}")
    np.testing.assert_array_equal(found.pixels, upright)
    assert found.remarks == ((image_file.UPRIGHT,) if orientation > 1 else ())


@pytest.mark.parametrize(("name", "data"), [("1.jpg", b"II*\0\x08\0\0\0\x05\0"), ("1.png", b"no such thing")])
def test_damaged_exif_data_are_remarked(tmp_path, pixels, name, data):
    Image.fromarray(pixels).save(tmp_path / name, exif=b"Exif\0\0" + data)
    with warnings.catch_warnings(action="error"):
        found = image_file.read(tmp_path / name)
    assert found.pixels.shape == pixels.shape and found.remarks == (image_file.DAMAGED,)


def test_other_profiles_than_srgb_are_remarked(tmp_path, pixels):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile, remarks in ((srgb, ()), (lab, (image_file.PROFILE,))):
        Image.fromarray(pixels).convert("RGB").save(tmp_path / "1.png", icc_profile=profile)
        assert image_file.read(tmp_path / "1.png").remarks == remarks


def test_the_first_picture_of_several_is_read(tmp_path, pixels):
    pictures = [Image.fromarray(np.full((5, 4), value, np.uint8)) for value in (0, 255)]
    pictures[0].save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    found = image_file.read(tmp_path / "1.jpg")
    assert (found.pixels == 0).all() and found.remarks == (image_file.FIRST,)


def test_what_is_no_file_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("1.png")
        refused(lambda: image_file.read(tmp_path / "1.png"), "1.png: is a socket, not a file")
    refused(lambda: image_file.read(tmp_path), "is a folder, not a file")
