"""The action that all processes of a run take after a dispatch: stop, save or continue."""

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Action(enum.IntEnum):
    """The next action that a process wants to take. Where processes differ, the largest wins."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2


class ActionSync:
    """Agrees on an action among processes. Every process calls it after each dispatch with the action that it wants.

    It returns the action that all of them take now. With several processes, this is the action they wanted one dispatch
    ago. That answer arrives along with the metrics, so no device has to wait for it.
    """

    def __init__(self):
        self._coming: jax.Array | None = None
        if jax.process_count() > 1:
            mesh = Mesh(np.array(jax.devices()), ("process",))
            self._sharding = NamedSharding(mesh, PartitionSpec("process"))
            self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, action: Action) -> Action:
        if jax.process_count() == 1:
            return action
        before = self._coming
        own = np.full(jax.local_device_count(), action, np.int32)
        self._coming = self._largest(jax.make_array_from_process_local_data(self._sharding, own))
        return Action.CONTINUE if before is None else Action(int(before))
