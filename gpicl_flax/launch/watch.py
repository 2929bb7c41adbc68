"""The loop that looks at shards until all have ended, for engines that keep them alive from here."""

import enum
from collections.abc import Iterable
from typing import Protocol

from gpicl_flax.launch.system import System

LONG_LIFE = 1800.0  # seconds; what lived so long has not failed at once


class Phase(enum.Enum):
    """The state of a shard, as far as this process knows."""

    NEW = enum.auto()  # nothing runs it
    EXISTS = enum.auto()  # a slice or a worker runs it
    DELETING = enum.auto()  # its slice goes away
    FINISHED = enum.auto()
    FAILED = enum.auto()  # given up
    STOPPED = enum.auto()  # told to stop


class Watched(Protocol):
    """An engine that keeps shards alive."""

    def advance(self, shard: int) -> bool:
        """Looks at a shard, and takes the step that follows. Returns whether the shard goes on."""
        ...

    def stop(self) -> None:
        """Is called at each round after this process was told to stop. It may raise `system.Stopped` when done."""
        ...


def watch(system: System, shards: Iterable[int], watched: Watched, seconds: float) -> None:
    """Looks at all shards every so many seconds, until none goes on."""
    shards = list(shards)
    while True:
        goes_on, stops = False, system.stops
        for shard in shards:
            if system.stops:
                watched.stop()
            goes_on |= watched.advance(shard)
        if not goes_on:
            return
        if system.stops == stops:  # otherwise it is told again at once
            system.wait(seconds)
