"""Raw datasets: the data of a source, before they are checked and converted to a run's input shape."""

from typing import NamedTuple

import numpy as np

BUILT_IN = ("digits", "random", "random_own_labels")  # names that no other base dataset can have


class RawSplit(NamedTuple):
    """One split in its original form.

    Attributes:
      inputs: images [n, height, width(, channels)] uint8, or features [n, X] float32. Images of several sizes are a
        list of [height, width, channels].
      labels: [n], integers.
    """

    inputs: np.ndarray | list[np.ndarray]
    labels: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """The inputs, if all of them have one size."""
        assert isinstance(self.inputs, np.ndarray), "inputs of several sizes"
        return self.inputs


# Stands for a split that was not asked for, and therefore not read.
NOT_READ = RawSplit(np.empty(0), np.empty(0))


class RawDataset(NamedTuple):
    """Both splits.

    Attributes:
      train, test: the fixed splits. `test` is NOT_READ where only the training split was asked for.
      class_names: names of the labels 0..C-1, if the source has them.
      group_size: examples of a group, if a sequence resamples one group of neighbours instead of drawing from all.
    """

    train: RawSplit
    test: RawSplit
    class_names: tuple[str, ...] | None = None
    group_size: int | None = None
