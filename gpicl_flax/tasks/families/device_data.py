"""The base dataset as programs read it: from the memory of every device, or from batches that the host brings."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.tasks.augmentation import Examples
from gpicl_flax.tasks.projections.input_space import Coordinates


class DeviceData(NamedTuple):
    """The input of a program that all its batches share.

    Attributes:
      split: all examples, inputs [n, stored features] and labels [n]. None: each batch brings its own.
      offset, scale: tasks are made from (input - offset) / scale.
      coordinates: those of the normalised inputs.
      fourier_rms: the root mean square of the normalised inputs, for tasks with random Fourier features; None: without.
    """

    split: tuple[jax.Array, jax.Array] | None
    offset: jax.Array | np.float32
    scale: jax.Array | np.float32
    coordinates: Coordinates
    fourier_rms: jax.Array | np.float32 | None = None

    def examples(self, batch: Mapping[str, jax.Array]) -> Examples:
        """Returns the base examples [B, T] of a batch, normalised. Called inside a program."""
        if self.split is None:
            inputs, labels = batch["inputs"], batch["labels"]
        else:
            inputs, labels = (array[batch["example_indices"]] for array in self.split)
        # Growing leaves a constant image unchanged, so normalising can come first.
        return Examples(self.coordinates((inputs.astype(jnp.float32) - self.offset) / self.scale), labels)
