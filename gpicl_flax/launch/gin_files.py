"""The gin files of a launch: where they are, and which have to travel."""

import dataclasses
import pathlib
import re

from gpicl_flax.errors import UsageError
from gpicl_flax.launch.options import LOCAL, SLURM, Options

_INCLUDE = re.compile(r"""^\s*include\s+(?:'([^']+)'|"([^"]+)")""", re.M)
_PACKAGE = pathlib.Path(__file__).parents[1]
HOME = (
    _PACKAGE if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent
)  # what has gin/: an installed package, or a checkout


@dataclasses.dataclass(frozen=True)
class GinFiles:
    """The gin files of a launch.

    Attributes:
      here: their names as they were given, for gpicl on this machine.
      there: their names for gpicl on hosts.
      embedded: the bytes of those that travel, by their names there; with Slurm, where none travels, of all that are
        read, since a job that waits reads them later.
    """

    here: tuple[str, ...]
    there: tuple[str, ...]
    embedded: dict[str, bytes]


def collect(options: Options) -> GinFiles:
    """Finds the gin files of a launch.

    Raises:
      UsageError: one is missing, or cannot travel.
    """
    here, there, embedded = [], [], {}
    for given in options.gin_files:
        path = next((path for path in (pathlib.Path(given), HOME / given) if path.is_file()), None)
        if path is None:
            raise UsageError(f"no gin file {given!r}, neither here nor among those that come with gpicl")
        if not given.isprintable():
            raise UsageError("a gin file's name must be one line")
        here.append(given)
        if options.engine in (LOCAL, SLURM):  # nothing has to travel
            there.append(given)
            if options.engine == SLURM:
                _read(path, given, embedded)
        elif _comes_with_gpicl(path):
            there.append(path.resolve().relative_to(HOME.resolve()).as_posix())
        else:
            target = given if _is_below_here(given) else f"given/{path.name}"
            _embed(path, target, embedded)
            there.append(target)
    if options.scale:
        scale = f"gin/scale/{options.scale}.gin"
        if not (HOME / scale).is_file():
            known = ", ".join(sorted(path.stem for path in (HOME / "gin/scale").glob("*.gin")))
            raise UsageError(f"--scale {options.scale}: there is no {scale}; there are {known}")
        here.append(scale)
        there.append(scale)
        if options.engine == SLURM:
            _read(HOME / scale, scale, embedded)
    return GinFiles(tuple(here), tuple(there), embedded)


def _is_below_here(name: str) -> bool:
    path = pathlib.PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def _comes_with_gpicl(path: pathlib.Path) -> bool:
    """Returns whether a file is among the gin files that hosts have as well: those of folders that are packed."""
    name = path.resolve()
    if not name.is_relative_to((HOME / "gin").resolve()):
        return False
    folder = name.relative_to((HOME / "gin").resolve()).parent.as_posix()
    setup = HOME / "setup.py"
    if folder == "." or not setup.is_file():
        return True
    return f'"gpicl_flax.gin.{folder.replace("/", ".")}"' in setup.read_text()


def _read(path: pathlib.Path, name: str, found: dict[str, bytes]) -> None:
    """Reads a file, and the files that it includes."""
    found[name] = path.read_bytes()
    for match in _INCLUDE.finditer(found[name].decode(errors="replace")):
        included = match[1] or match[2]
        own = next((own for own in (pathlib.Path(included), HOME / included) if own.is_file()), None)
        if own is not None and included not in found:
            _read(own, included, found)


def _embed(path: pathlib.Path, target: str, embedded: dict[str, bytes]) -> None:
    """Takes a file along, with the files that it includes."""
    data = path.read_bytes()
    if target in embedded:
        if embedded[target] != data:
            raise UsageError(f"two gin files are called {target!r}")
        return
    embedded[target] = data
    for match in _INCLUDE.finditer(data.decode(errors="replace")):
        included = match[1] or match[2]
        own = pathlib.Path(included)
        if own.is_file() and not _comes_with_gpicl(own):
            if not _is_below_here(included):
                raise UsageError(
                    f"{path} includes {included!r}, which cannot be taken along; include it by a path below this folder"
                )
            _embed(own, included, embedded)
        elif not own.is_file() and not (HOME / included).is_file():
            raise UsageError(
                f"{path} includes {included!r}, which is neither here nor among the files that come with gpicl"
            )
