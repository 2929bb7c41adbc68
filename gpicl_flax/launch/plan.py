"""Makes a plan of options: everything that a launch is to do, decided before anything is made."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence

from gpicl_flax.errors import UsageError
from gpicl_flax.launch import gin_files, package, slice_type
from gpicl_flax.launch.gin_files import GinFiles
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, SLURM, SWEEP, TRAIN, Options
from gpicl_flax.launch.package import Package
from gpicl_flax.launch.slice_type import SliceType
from gpicl_flax.launch.system import System, caches

PREINSTALLED = "preinstalled"  # the package that is there already
_MOUNTED = "gs://BUCKET/FOLDER or an absolute path that all hosts mount"
_FOLDERS = {SLICES: _MOUNTED, GKE: _MOUNTED, SLURM: "a folder that all nodes see", LOCAL: "a folder of this machine"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A launch.

    Attributes:
      options: what was asked for, with a name and an absolute working folder.
      gin: its gin files.
      folder: where this machine keeps what it makes for launches of this name.
      slices: the kind of the slices; None where there are none.
      package: what hosts install; None where nothing is brought.
      datasets: the folders here of the base datasets that travel, by their paths below the folder of TFDS.
      missing: the names of those that nobody has prepared here.
    """

    options: Options
    gin: GinFiles
    folder: pathlib.Path
    slices: SliceType | None = None
    package: Package | None = None
    datasets: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def shards(self) -> range:
        """The numbers of the shards, from 1."""
        return range(1, self.options.num_slices + 1)

    @property
    def most(self) -> int:
        """How many shards run at once."""
        return min(self.options.max_parallel or self.options.num_slices, self.options.num_slices)

    @property
    def store(self) -> str:
        """The folder in the working folder that belongs to launches."""
        return f"{self.options.workdir}/.launch"

    def id(self, shard: int) -> str:
        """Returns the name of a shard: of its slice, job or worker."""
        return f"{self.options.name}-{shard}"

    def arguments(self, shard: int | None = None) -> list[str]:
        """Returns the arguments of gpicl where it runs; without `shard`, for all shards."""
        given = self.options
        words = [given.command, *choosing(self.gin.there, given.gin_bindings), "--workdir", given.workdir]
        words += ["--only", given.only] if given.only is not None else []
        words += ["--stack", given.stack] if given.stack is not None else []
        return [*words, *(["--shard", f"{shard}/{given.num_slices}"] if shard and given.command == SWEEP else [])]

    @property
    def prepared_there(self) -> list[str]:
        """The base datasets that hosts prepare themselves."""
        return [*self.missing] if self.options.prepare_on_hosts else []

    @property
    def not_prepared(self) -> str:
        """Says what is missing, and what to do."""
        there = ", with --prepare_on_hosts the slices do" if self.options.engine == SLICES else ""
        return (
            f"base datasets that are not prepared here: {', '.join(self.missing)}; where there is a network, "
            f"`gpicl datasets prepare {' '.join(self.missing)}` prepares them{there}; or bring its files under another "
            "name, `gpicl datasets import`"
        )

    @functools.cached_property
    def digest(self) -> str:
        """A digest of everything that decides what is computed, 16 hexadecimal digits."""
        given, embedded = self.options, {name: data.hex() for name, data in self.gin.embedded.items()}
        brought = self.package and (self.package.requirement, self.package.digest)
        data = sorted([*self.datasets, *self.prepared_there])
        parts = [self.arguments(), embedded, given.num_slices, brought, data, given.image]
        if given.engine != SLICES:  # there it says only where data are brought from
            parts.append(given.data_dir)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def choosing(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> list[str]:
    """Returns the arguments of gpicl that choose the points."""
    words = [word for name in gin_files for word in ("--gin_file", name)]
    return words + [word for binding in gin_bindings for word in ("--gin_bindings", binding)]


def table_arguments(options: Options, gin: GinFiles) -> list[str]:
    """Returns the arguments of gpicl that show the runs of a sweep."""
    only = ["--only", options.only] if options.only is not None else []
    return ["sweep", *choosing(gin.here, options.gin_bindings), *only, "--workdir", options.workdir, "--status"]


def make(options: Options, system: System) -> Plan:
    """Returns the plan of a launch. Nothing is made.

    Raises:
      UsageError: an option is missing or wrong, or a gin file is.
    """
    options = complete(options)
    slices = None
    if options.engine in (SLICES, GKE):
        options.need("accelerator_type", why="such as v5litepod-16")
        slices = slice_type.parse(options.accelerator_type or "")
    _check_data_dir(options)
    plan = Plan(options, gin_files.collect(options), caches(system.environment) / options.name, slices)
    if options.engine == SLICES:
        plan = dataclasses.replace(plan, package=package.describe(options, plan.folder, plan.store))
    if options.engine in (SLICES, SLURM) and options.package is None:
        plan = _with_datasets(plan)
    return plan


def complete(options: Options) -> Options:
    """Returns options with a name and an absolute working folder; raises UsageError if they cannot be."""
    files, engine, workdir = options.gin_files, options.engine, options.workdir
    name = options.name or (name_of(files[0]) if files else "")
    if not name:
        raise UsageError("--name is needed, or the gin file of the sweep")
    if options.command in (SWEEP, TRAIN):
        if engine == LOCAL:
            workdir = workdir or f"runs/{pathlib.PurePath(files[0]).stem}"
        elif not workdir:
            options.need("workdir", f"with --engine {engine}: {_FOLDERS[engine]}")
    if workdir.startswith("gs://"):
        if engine in (LOCAL, SLURM):
            raise UsageError(f"--workdir must be {_FOLDERS[engine]} with --engine {engine}, not {workdir!r}")
        if not re.fullmatch(r"gs://[a-z0-9][-a-z0-9._]*/[^\]\[*?#]+", workdir):  # gcloud takes these for wildcards
            raise UsageError(f"--workdir must be gs://BUCKET/FOLDER, without * ? [ ] and #, not {workdir!r}")
    elif workdir:
        if engine in (SLICES, GKE) and not workdir.startswith("/"):
            raise UsageError(f"--workdir must be {_FOLDERS[engine]}, not {workdir!r}")
        workdir = os.path.abspath(workdir)
    return dataclasses.replace(options, name=name, workdir=workdir.rstrip("/"))


def name_of(gin_file: str) -> str:
    """Returns a name made of that of a gin file: gin/state_size.gin -> state-size."""
    name = re.sub(r"[^a-z0-9]+", "-", pathlib.PurePath(gin_file).stem.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}")[:40].rstrip("-")


def _check_data_dir(options: Options) -> None:
    folder = options.data_dir
    if options.prepare_on_hosts and options.package is not None:
        raise UsageError("--prepare_on_hosts is for the package of this checkout, which knows what the points read")
    if folder is None:
        return
    if options.engine == GKE and not folder.startswith("/"):
        raise UsageError(f"--data_dir must be an absolute path in the container with --engine gke, not {folder!r}")
    if options.engine != GKE and not os.path.isdir(folder):
        raise UsageError(f"--data_dir: there is no folder {folder!r} here")
    if options.engine == SLICES and options.package is not None:
        raise UsageError(
            "--data_dir is for the package of this checkout; with --package bring the base datasets to the hosts "
            "yourself, and bind TaskDistribution.data_dir to where they are"
        )


def _with_datasets(plan: Plan) -> Plan:
    """Checks every point, and finds the prepared base datasets that they read.

    A mistake in a gin file is found here, and not on a slice that was waited for.
    """
    from gpicl_flax.config import parse
    from gpicl_flax.sweep import needs  # imports everything that gin files name

    given = plan.options
    config = parse(plan.gin.here, given.gin_bindings)
    found, missing = needs.datasets(config, given.only, given.data_dir)
    for folder in found.values() if given.engine == SLICES else ():  # nodes of Slurm read them where they are
        if re.search(r"[*?#\[\]]", folder):
            raise UsageError(f"{folder!r} must be a path without * ? [ ] and #, which gcloud takes for wildcards")
    plan = dataclasses.replace(plan, datasets=found, missing=tuple(missing))
    if missing and not given.dry_run and not given.prepare_on_hosts:
        raise UsageError(plan.not_prepared)
    return plan
