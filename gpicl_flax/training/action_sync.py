"""What all processes of a run do after a dispatch: stop, save or go on."""

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Wish(enum.IntEnum):
    """What a process wishes to do; where they differ, the largest is done."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class Agreement:
    """Called by every process after each dispatch with its own wish: what all of them do now.

    Among several processes it is what they wished one dispatch ago. That much later the answer has come by itself, behind
    the metrics, so that no device waits for it.
    """

    def __init__(self):
        self._coming: jax.Array | None = None
        if jax.process_count() > 1:
            mesh = Mesh(np.array(jax.devices()), ("process",))
            self._sharding = NamedSharding(mesh, PartitionSpec("process"))
            self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, wish: Wish) -> Wish:
        if jax.process_count() == 1:
            return wish
        before = self._coming
        own = np.full(jax.local_device_count(), wish, np.int32)
        self._coming = self._largest(jax.make_array_from_process_local_data(self._sharding, own))
        return Wish.GO_ON if before is None else Wish(int(before))
