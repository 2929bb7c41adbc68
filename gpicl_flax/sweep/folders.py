"""The folders of the points of a sweep in WORKDIR. Their names end in the points' digests."""

from collections.abc import Sequence

from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import saved_config
from gpicl_flax.runs.identity import digest
from gpicl_flax.sweep.grid import Point


def listed(workdir: epath.PathLike) -> list[str]:
    """Returns the names in WORKDIR, listed once for all points, because each listing on gs:// takes long."""
    return [name for name in RunFolder(workdir).names() if not name.startswith(".")]


def find(points: Sequence[Point], workdir: epath.PathLike, names: Sequence[str] | None = None) -> list[RunFolder]:
    """Returns the folder of each point, which need not exist.

    It is the one whose name ends in the digest of the point, regardless of the rest of the name. If there is none, a
    folder of version 0.1 is used. If there is none either, it is WORKDIR/<run id>.

    Args:
      points: the points of the sweep.
      workdir: the folder of the sweep.
      names: those of the folders in WORKDIR; None: those that `listed` finds now.

    Raises:
      UsageError: several folders end in the digest of one point, and none of them is named by its run id.
    """
    by_digest: dict[str, list[str]] = {}
    for name in listed(workdir) if names is None else names:
        by_digest.setdefault(name.rpartition("_")[2], []).append(name)
    return [RunFolder(epath.Path(workdir) / _name(point, by_digest, workdir)) for point in points]


def _name(point: Point, by_digest: dict[str, list[str]], workdir: epath.PathLike) -> str:
    if not point.digest:  # it is pending, and no folder can be its own
        return point.run_id
    present = by_digest.get(point.digest, [])
    if not present:
        return _legacy_name(point, by_digest, workdir) or point.run_id
    if point.run_id in present:
        return point.run_id
    if len(present) > 1:
        raise UsageError(
            f"{workdir} has {len(present)} folders of one point, {' and '.join(present[:2])}: move all but one of them "
            "elsewhere"
        )
    return present[0]


def _legacy_name(point: Point, by_digest: dict[str, list[str]], workdir: epath.PathLike) -> str | None:
    """Returns the folder that version 0.1 made for a point, if there is one.

    Version 0.1 could make several. They were equal, so any will do.
    """
    for run_id in point.legacy_ids:
        candidates = by_digest.get(run_id.rpartition("_")[2], [])
        if run_id in candidates:
            return run_id
        # A digest of 0.1 has only 32 bits, so another run may share it. For any other name the configuration decides.
        for name in candidates:
            if _holds(RunFolder(epath.Path(workdir) / name), point):
                return name
    return None


def _holds(folder: RunFolder, point: Point) -> bool:
    try:
        return digest(saved_config.read(folder)) == point.digest
    except (UsageError, OSError):
        return False
