"""Damages of a run folder, which several tests try."""

import os
import shutil

KINDS = ("emptied", "halved", "deleted", "garbage", "bytes flipped", "a folder", "a pipe", "other JSON", "no UTF-8")


def files(path):
    """Returns the paths, below a run folder, of the files that can be damaged: all but pictures."""
    found = []
    for folder, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(folder, name), path) for name in names if not name.endswith(".png")]
    return sorted(found)


def damage(path, kind, rng):
    """Damages a file in one of KINDS."""
    with open(path, "rb") as file:
        data = file.read()
    if kind in ("deleted", "a folder", "a pipe"):
        os.unlink(path)
        if kind == "a folder":
            os.mkdir(path)
        if kind == "a pipe":
            os.mkfifo(path)
        return
    flipped = bytearray(data)
    for place in rng.integers(max(len(data), 1), size=3) if data else ():
        flipped[place] ^= 1 << rng.integers(8)
    new = {
        "emptied": b"",
        "halved": data[: len(data) // 2],
        "garbage": rng.bytes(len(data)),
        "bytes flipped": bytes(flipped),
        "other JSON": b'{"steps": [], "curves": 3, "step": null, "loader": {}}\n',
        "no UTF-8": b"\xff\xfe" + data,
    }[kind]
    with open(path, "wb") as file:
        file.write(new)


def copy(source, target):
    """Copies a run folder."""
    shutil.copytree(source, target)
    return target
