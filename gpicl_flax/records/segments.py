"""The parts of a log on gs://: the log itself, and numbered segments after it, such as metrics.0000000410.jsonl.

Nothing can be appended to an object, so each write of a log makes one segment, named by the step of its first row. From
time to time the process that writes the log appends its segments to the log, on the server, and removes them. A reader
may see a segment whose rows the log has already: rows that are not later than those before them do not count.
"""

import re
from collections.abc import Collection

from etils import epath

from gpicl_flax.runtime import gcs


def path(log: epath.Path, step: int) -> str:
    """Returns the path of the segment whose first row is of this step."""
    return str(log.with_name(f"{log.stem}.{step:010d}{log.suffix}"))


def of(log: epath.Path, names: Collection[str] | None = None) -> list[str]:
    """Returns the paths of the segments of a log in their order, without the log itself.

    Args:
      log: its path.
      names: the names in its folder; None: they are listed now.
    """
    if names is None:
        names = gcs.listing(log.parent, f"{log.stem}.")
    pattern = re.compile(rf"{re.escape(log.stem)}\.\d{{10}}{re.escape(log.suffix)}")
    return [str(log.parent / name) for name in sorted(names) if pattern.fullmatch(name)]
