"""From options to a plan: everything that a launch is to do, decided before anything is made."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re

from gpicl_flax.errors import UsageError
from gpicl_flax.launch import gin_files, package, slice_type
from gpicl_flax.launch.gin_files import GinFiles
from gpicl_flax.launch.options import GKE, LOCAL, SLICES, SLURM, SWEEP, TRAIN, Options
from gpicl_flax.launch.package import Package
from gpicl_flax.launch.slice_type import SliceType
from gpicl_flax.launch.system import System, caches

PREINSTALLED = "preinstalled"  # the package that is there already


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
      missing: those that no one has prepared here, by name, each with what to do.
    """

    options: Options
    gin: GinFiles
    folder: pathlib.Path
    slices: SliceType | None = None
    package: Package | None = None
    datasets: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shards(self) -> range:
        """The numbers of the shards, from 1."""
        return range(1, self.options.num_slices + 1)

    @property
    def most(self) -> int:
        """How many shards run at once."""
        return min(self.options.max_parallel or math.inf, self.options.num_slices)  # pyright: ignore[reportReturnType]

    @property
    def store(self) -> str:
        """The folder in the working folder that belongs to launches."""
        return f"{self.options.workdir}/.launch"

    def id(self, shard: int) -> str:
        """Returns the name of a shard: of its slice, job or worker."""
        return f"{self.options.name}-{shard}"

    def arguments(self, shard: int | str | None = None, *, here: bool = False) -> list[str]:
        """Returns the arguments of gpicl, for hosts or for this machine; without `shard`, less that."""
        files = self.gin.here if here else self.gin.there
        given = self.options
        words = [given.command, *(word for name in files for word in ("--gin_file", name))]
        words += [word for binding in given.gin_bindings for word in ("--gin_bindings", binding)]
        words += ["--workdir", given.workdir]
        if given.only is not None:
            words += ["--only", given.only]
        if given.stack is not None:
            words += ["--stack", given.stack]
        if given.command == SWEEP and shard is not None:
            words += ["--shard", f"{shard}/{given.num_slices}"]
        return words

    @property
    def digest(self) -> str:
        """A digest of everything that decides what is computed, 16 hexadecimal digits."""
        embedded = {name: data.hex() for name, data in self.gin.embedded.items()}
        brought = self.package and (self.package.requirement, self.package.digest)
        given = self.options
        parts = self.arguments(), embedded, given.num_slices, brought, [*self.datasets], given.image, given.data_dir
        if given.prepare_on_hosts:
            parts = *parts, sorted(self.missing)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def make(options: Options, system: System) -> Plan:
    """Returns the plan of a launch. Nothing is made.

    Raises:
      UsageError: an option is missing or wrong, or a gin file is.
    """
    if not options.gin_files:
        raise UsageError("a gin file is needed, such as gin/state_size.gin (--help explains)")
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
    files = options.gin_files
    name = options.name or (name_of(files[0]) if files else "")
    if not name:
        raise UsageError("--name is needed, or the gin file of the sweep")
    workdir = options.workdir
    if options.engine == LOCAL and not workdir and files and options.command in (SWEEP, TRAIN):
        workdir = f"runs/{pathlib.PurePath(files[0]).stem}"
    if options.engine in (SLICES, GKE):
        options = dataclasses.replace(options, workdir=workdir)
        if options.command in (SWEEP, TRAIN):
            options.need("workdir", why=f"with --engine {options.engine}: gs://BUCKET/FOLDER, or an absolute path that "
                         "all hosts mount")  # fmt: skip
        if workdir and not workdir.startswith(("gs://", "/")):
            raise UsageError(
                f"--workdir must be gs://BUCKET/FOLDER or an absolute path that all hosts mount, not {workdir!r}"
            )
    if workdir.startswith("gs://"):
        if options.engine == LOCAL:
            raise UsageError(f"--workdir must be a folder of this machine with --engine local, not {workdir!r}")
        if not re.fullmatch(r"gs://[a-z0-9][-a-z0-9._]*/[^\]\[*?#]+", workdir):  # gcloud takes these for wildcards
            raise UsageError(f"--workdir must be gs://BUCKET/FOLDER, without * ? [ ] and #, not {workdir!r}")
    elif workdir:
        workdir = os.path.abspath(workdir)
    return dataclasses.replace(options, name=name, workdir=workdir.rstrip("/"))


def name_of(gin_file: str) -> str:
    """Returns a name made of that of a gin file: gin/state_size.gin -> state-size."""
    name = re.sub(r"[^a-z0-9]+", "-", pathlib.PurePath(gin_file).stem.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}")[:40].rstrip("-")


def _check_data_dir(options: Options) -> None:
    folder = options.data_dir
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
    for folder in found.values():
        if re.search(r"[*?#\[\]]", folder):
            raise UsageError(f"{folder!r} must be a path without * ? [ ] and #, which gcloud takes for wildcards")
    if given.prepare_on_hosts and not missing:
        raise UsageError("--prepare_on_hosts has nothing to do: all base datasets are prepared here")
    if missing and not given.dry_run and not given.prepare_on_hosts:
        raise UsageError(next(iter(missing.values())))
    return dataclasses.replace(plan, datasets=found, missing=missing)
