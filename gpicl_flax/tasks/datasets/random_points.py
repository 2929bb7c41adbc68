"""The paper's Random dataset: classification problems of ten random points (Appendix A.4, Table 2)."""

import math

import numpy as np

from gpicl_flax.tasks.datasets.raw import RawDataset, RawSplit

NUM_POINTS = 10
_NUM_GROUPS = 1000  # different problems in a split


def make(input_shape: tuple[int, ...], *, own_labels: bool) -> RawDataset:
    """Makes groups of ten points with coordinates uniform in [0, 1], kept as grey values.

    A sequence resamples one group.

    Args:
      input_shape: the shape of a point.
      own_labels: every point of a group has its own label, as in the authors' code. If not, labels are uniform, as in
        the paper's text, so that points of a group can share one.
    """

    def split(seed: int) -> RawSplit:
        rng = np.random.default_rng(seed)
        inputs = rng.integers(0, 256, (_NUM_GROUPS * NUM_POINTS, math.prod(input_shape)), dtype=np.uint8)
        labels = (
            np.tile(np.arange(NUM_POINTS), _NUM_GROUPS) if own_labels else rng.integers(NUM_POINTS, size=len(inputs))
        )
        return RawSplit(inputs.reshape(-1, *input_shape), labels)

    return RawDataset(split(0), split(1), group_size=NUM_POINTS)
