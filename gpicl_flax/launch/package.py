"""The package that hosts install: a wheel of this checkout, any pip requirement, or what is there already."""

import dataclasses
import hashlib
import pathlib
import sys

from gpicl_flax import __version__
from gpicl_flax.errors import UsageError
from gpicl_flax.launch import storage
from gpicl_flax.launch.actions import Action, command
from gpicl_flax.launch.gin_files import HOME
from gpicl_flax.launch.options import Options

_SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "gin", "gpicl_flax")
_DIGESTED = ("gpicl_flax", "gin", "setup.py", "pyproject.toml", "constraints.txt")


@dataclasses.dataclass(frozen=True)
class Package:
    """The package that hosts install.

    Attributes:
      requirement: a pip requirement, `preinstalled`, or '' for a wheel of this checkout.
      digest: that of the sources of the wheel.
      build: the folder here in which it is made.
      wheel: where hosts find it.
      constraints: where hosts find the versions of everything else.
    """

    requirement: str
    digest: str = ""
    build: pathlib.Path = pathlib.Path()
    wheel: str = ""
    constraints: str = ""


def describe(options: Options, folder: pathlib.Path, store: str) -> Package:
    """Returns what hosts install. Nothing is made.

    Raises:
      UsageError: there is no checkout to make a wheel of.
    """
    if options.package is not None:
        if options.package.startswith("-"):
            raise UsageError(f"--package must be one pip requirement, not {options.package!r}")
        return Package(options.package)
    if not (HOME / "setup.py").is_file():
        raise UsageError("--package is needed where gpicl is no checkout: a pip requirement, or preinstalled")
    digest = _digest()
    there = f"{store}/package/{digest}"
    wheel = f"{there}/gpicl_flax-{__version__}-py3-none-any.whl"
    return Package("", digest, folder / "package" / digest, wheel, f"{there}/constraints.txt")


def upload(package: Package, *, is_built: bool) -> list[Action]:
    """Returns what builds the wheel and puts it where hosts find it, with the versions of everything else."""
    if package.requirement:
        return []
    made = package.build / pathlib.PurePath(package.wheel).name
    source = package.build / "source"
    # A copy: a build inside the checkout would also pack what an earlier build has left there.
    build: list[Action] = [
        command("rm", "-rf", package.build),
        command("mkdir", "-p", source),
        command("cp", "-R", *(HOME / name for name in _SOURCES), source),
        command(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps",
                "--wheel-dir", package.build, source,
                failure="the package could not be built; --package takes a pip requirement instead"),
    ]  # fmt: skip
    versions = str(HOME / "constraints.txt")
    copies = storage.copy_file(str(made), package.wheel) + storage.copy_file(versions, package.constraints)
    return [*([] if is_built else build), *copies]


def is_built(package: Package) -> bool:
    """Returns whether the wheel was made before."""
    return (package.build / pathlib.PurePath(package.wheel).name).is_file()


def _digest() -> str:
    """Returns that of the sources, 16 hexadecimal digits."""
    total = hashlib.sha256()
    paths = [
        path for name in _DIGESTED for path in ((HOME / name).rglob("*") if (HOME / name).is_dir() else [HOME / name])
    ]
    for path in sorted(paths):
        if path.suffix in (".py", ".gin", ".toml", ".txt", ".sh", ".yaml") and path.is_file():
            total.update(f"{path.relative_to(HOME)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]
