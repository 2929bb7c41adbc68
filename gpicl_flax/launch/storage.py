"""The working folder, on gs:// or where this machine sees it: commands that copy, and what is there."""

import pathlib

from gpicl_flax.launch.actions import Command, command
from gpicl_flax.launch.system import System


def is_remote(path: str) -> bool:
    """Returns whether a path is on gs://."""
    return path.startswith("gs://")


def copy_file(source: str, target: str) -> list[Command]:
    """Returns what copies a file."""
    if is_remote(source) or is_remote(target):
        return [command("gcloud", "storage", "cp", "--quiet", source, target)]
    return [command("mkdir", "-p", "--", pathlib.Path(target).parent), command("cp", "--", source, target)]


def copy_folder(source: str, target: str) -> list[Command]:
    """Returns what copies the files of a folder, and those below it."""
    if is_remote(source) or is_remote(target):
        return [command("gcloud", "storage", "rsync", "--quiet", "--recursive", source, target)]
    return [command("mkdir", "-p", "--", target), command("cp", "-R", "--", f"{source}/.", target)]


def remove(path: str) -> list[Command]:
    """Returns what removes a file."""
    return [command("gcloud", "storage", "rm", "--quiet", path) if is_remote(path) else command("rm", "-f", "--", path)]


def read(system: System, path: str) -> str | None:
    """Returns the text of a file; None where there is none, or where it cannot be read now."""
    if is_remote(path):
        answer = system.call(["gcloud", "storage", "cat", path])
        return None if answer.code else answer.output
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return None


def matching(system: System, folder: str, pattern: str) -> list[str]:
    """Returns the paths in a folder whose names match a pattern, in their order."""
    if is_remote(folder):
        return sorted(system.call(["gcloud", "storage", "ls", f"{folder}/{pattern}"]).output.split())
    return sorted(map(str, pathlib.Path(folder).glob(pattern)))


def values(text: str | None) -> dict[str, str]:
    """Returns the values in lines of key=value, of which the first of a key counts."""
    pairs = (line.partition("=") for line in reversed((text or "").splitlines()))
    return {key: value for key, equals, value in pairs if equals}
