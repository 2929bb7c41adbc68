"""The identity of a run: all of its configuration that can change its results."""

import functools
import hashlib

from gpicl_flax.config import Config, canonical_key

# Bindings that may differ between two starts of one run: where its data come from and are kept, the layout on devices
# (which changes results only by rounding), what it logs in addition to its records, how often it can be resumed, and
# how its settings were chosen. A run continues with other values for them in the same folder, so they must not change
# its digest. Training.checkpoint_period is not one of them, because it determines when a run is meta-tested. Nor is
# Run.labels: a run folder carries its labels to the report, and an experiment may have the same bindings under several
# labels (as in gin/parameter_count.gin). A name with a dot at its end means all parameters.
_CANNOT_CHANGE_RESULTS = (
    "Loader.",
    "MeshShape.",
    "Run.loader",
    "Run.mesh",
    "Run.selection",
    "Run.tensorboard",
    "TaskDistribution.data_dir",
    "Training.checkpoint_seconds",
    "Training.keep_checkpoints",
)
_DIGITS = 12  # of a digest in base 16; among 100,000 runs, the chance that any two have the same is 2e-5


def identifying(config: Config) -> Config:
    """Returns a configuration without the bindings that cannot change the results of a run."""
    return config.without(*(key for key in config.bindings if _cannot_change_results(canonical_key(key))))


def digest(config: Config) -> str:
    """Returns the identity of a run as text.

    It is equal for configurations that differ only in spelling, or in bindings that cannot change results.
    """
    bindings = sorted(f"{key} = {value}" for key, value in identifying(config).canonical.items())
    text = "\n".join([*sorted(config.imports), *bindings])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


@functools.cache  # the points of a sweep have the same few names
def _cannot_change_results(canonical_name: str) -> bool:
    name = canonical_name.rpartition("/")[2]  # without its scope
    own = name.removeprefix("gpicl_flax.")
    return name != own and any(own.startswith(x) if x.endswith(".") else own == x for x in _CANNOT_CHANGE_RESULTS)
