"""Finds configurables by the names that they had before their modules moved.

Gin files may contain a module's name, and old files contain its old name.
"""

import functools
import logging
from typing import Any

from gin import config as gin_config

logger = logging.getLogger(__name__)

FORMER_NAMES = {
    "gpicl_flax.run.Run": "gpicl_flax.runs.run.Run",
    "gpicl_flax.sweep.grid.sweep": "gpicl_flax.runs.scale.sweep",
    "gpicl_flax.baselines.maml.MAML": "gpicl_flax.references.maml.MAML",
    "gpicl_flax.baselines.online_sgd.OnlineSGD": "gpicl_flax.references.online_sgd.OnlineSGD",
    "gpicl_flax.training.diagnostics.Diagnostics": "gpicl_flax.training.probes.diagnostics.Diagnostics",
    "gpicl_flax.tasks.distribution.TaskDistribution": "gpicl_flax.tasks.families.projected_images.TaskDistribution",
    "gpicl_flax.training.telemetry.Telemetry": "gpicl_flax.training.probes.telemetry.Telemetry",
}
registry = gin_config._REGISTRY  # the only map from selectors to configurables; gin has no public access to it
_find = registry.get_match


def _find_moved_too(partial_selector: str, default: Any = None) -> Any:
    """Finds a configurable as gin does, or otherwise by its former name."""
    found = _find(partial_selector, default)
    if found is default:
        new = next((new for old, new in FORMER_NAMES.items() if f".{old}".endswith(f".{partial_selector}")), None)
        if new is not None and (found := _find(new, default)) is not default:
            warn(partial_selector, new)
    return found


@functools.cache  # so that each old name gives one warning
def warn(old: str, new: str) -> None:
    """Says that a name is a former one."""
    logger.warning("%s is now %s; the old name works until 0.3", old, new)


registry.get_match = _find_moved_too
