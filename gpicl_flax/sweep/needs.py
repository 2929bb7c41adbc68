"""Finds what the runs of a sweep need on the machine that trains them: prepared base datasets."""

from gpicl_flax.config import Config
from gpicl_flax.sweep import listing, stages, subset
from gpicl_flax.tasks.datasets import sources
from gpicl_flax.tasks.datasets.tfds_store import NotPrepared


def datasets(
    config: Config, pattern: str | None = None, data_dir: str | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Finds the prepared base datasets that the points of a sweep, or a single run, train or meta-test on.

    Left out are those that come with the package, and runs with TaskDistribution.data_dir, whose data are to be there
    already.

    Args:
      config: that of the sweep or of the run.
      pattern: see `subset.only`.
      data_dir: the folder of TFDS; None: its own default.

    Returns:
      The folders of the datasets by their paths below the folder of TFDS, and those that are not prepared, by name,
      each with what to do.

    Raises:
      UsageError: a point is wrong, there is no such base dataset, or it is a path.
    """
    runs = listing.resolve_all(subset.only(stages.points_or_run(config), pattern))
    found, missing = {}, {}
    for name in dict.fromkeys(name for run in runs for name in run.tasks.default_datasets(run.base_datasets)):
        try:
            place = sources.locate(name, data_dir=data_dir)
        except NotPrepared as error:
            missing[name] = str(error)
            continue
        if place is not None:
            found[place[0]] = str(place[1])
    return found, missing
