"""The working folder, on gs:// or where this machine sees it: commands that copy, and what is there."""

import pathlib

from gpicl_flax.launch.actions import Command, command
from gpicl_flax.launch.system import System


def is_remote(path: str) -> bool:
    """Returns whether a path is on gs://."""
    return path.startswith("gs://")


def copy_file(source: str, target: str) -> list[Command]:
    """Returns what copies a file."""
    failure = f"cannot write to {target}"
    if is_remote(target):
        return [command("gcloud", "storage", "cp", "--quiet", source, target, failure=failure)]
    folder = pathlib.Path(target).parent
    return [
        command("mkdir", "-p", "--", folder, failure=failure),
        command("cp", "--", source, target, failure=failure),
    ]


def copy_folder(source: str, target: str) -> list[Command]:
    """Returns what copies the files of a folder and those below it, to where the same may be already."""
    failure = f"{source} could not be copied to {target}"
    if is_remote(source) or is_remote(target):
        return [command("gcloud", "storage", "rsync", "--quiet", "--recursive", source, target, failure=failure)]
    return [
        command("mkdir", "-p", "--", target, failure=failure),
        command("cp", "-R", "--", f"{source}/.", target, failure=failure),
    ]


def is_copied(system: System, source: str, target: str) -> bool:
    """Returns whether a folder has the same files as one here. On gs:// nobody has to ask: rsync leaves them alone."""
    return not is_remote(target) and system.call(["diff", "-rq", "--", source, target]).code == 0


def remove(path: str) -> Command:
    """Returns what removes a file."""
    return command("gcloud", "storage", "rm", "--quiet", path) if is_remote(path) else command("rm", "-f", "--", path)


def read(system: System, path: str) -> str | None:
    """Returns the text of a file; None where there is none, or where it cannot be read now."""
    if is_remote(path):
        answer = system.call(["gcloud", "storage", "cat", path])
        return None if answer.code else answer.output
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return None


def matching(system: System, folder: str, pattern: str) -> list[str]:
    """Returns the paths in a folder whose names match a pattern, in their order."""
    if is_remote(folder):
        return sorted(system.call(["gcloud", "storage", "ls", f"{folder}/{pattern}"]).output.splitlines())
    return sorted(map(str, pathlib.Path(folder).glob(pattern)))


def values(text: str | None) -> dict[str, str]:
    """Returns the values in lines of key=value, of which the first of a key counts."""
    pairs = (line.partition("=") for line in reversed((text or "").splitlines()))
    return {key: value for key, equals, value in pairs if equals}
