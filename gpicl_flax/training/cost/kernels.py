"""The kernels of a profiler's trace: how often each ran, and for how long.

A trace has a plane for each device and one for the host, a plane has lines, and a line has events. On a GPU the kernels
are the events of streams, on a TPU those of the line 'XLA Ops', and on CPU those events of the host's threads that
belong to an operation of a program.
"""

import collections
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.profiler import ProfileData

_TPU_LINE, _GPU_LINES = "XLA Ops", "Stream"
_HOST, _DEVICE = "/host:CPU", "/device:"
# Control flow spans what it runs, which on CPU may be on other threads. The profiler also marks ends.
_NO_KERNEL = re.compile(r"(while|conditional|call)(\.\d+)?$|end: ")


class Kernel(NamedTuple):
    """What all events of one name took.

    Attributes:
      name: as the compiler calls it.
      calls: the number of events. On CPU a kernel that several threads share has one on each.
      milliseconds: their time in all, without that of events within them.
      share: that time over the time of all kernels.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


def trace_file(folder: pathlib.Path) -> pathlib.Path:
    """Returns the newest trace that `jax.profiler.trace` left in a folder."""
    return max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)


def costliest_first(data: ProfileData) -> list[Kernel]:
    """Returns the kernels of all devices in a trace, or of the host if there is no device, by their time."""
    calls: collections.Counter[str] = collections.Counter()
    times: collections.Counter[str] = collections.Counter()
    for line in _lines(list(data.planes)):
        for name, nanoseconds in own_times(line):
            if not _NO_KERNEL.match(name):
                calls[name] += 1
                times[name] += nanoseconds
    total = sum(times.values())
    return [Kernel(name, calls[name], time / 1e6, time / total if total else 0.0) for name, time in times.most_common()]


def _lines(planes: Sequence[Any]) -> Iterator[list[tuple[str, float, float]]]:
    """Yields the (name, start, duration in ns) of the kernels of each line that has any."""
    devices = [plane for plane in planes if plane.name.startswith(_DEVICE)]
    for plane in devices:
        for line in plane.lines:
            if line.name == _TPU_LINE or line.name.startswith(_GPU_LINES):
                yield [(event.name, event.start_ns, event.duration_ns) for event in line.events]
    if not devices:
        for plane in planes:
            for line in plane.lines if plane.name == _HOST else ():
                yield [
                    (event.name, event.start_ns, event.duration_ns)
                    for event in line.events
                    if any(name == "hlo_op" for name, _ in event.stats)
                ]


def own_times(events: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, float]]:
    """Yields each event of a line with its time less that of the events that it contains.

    Args:
      events: (name, start, duration); of two events, either one contains the other or they do not overlap.
    """
    open_events: list[list[Any]] = []  # name, end, own time; each contains the next one
    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        while open_events and open_events[-1][1] <= start:
            ended, _, own = open_events.pop()
            yield ended, own
        if open_events:
            open_events[-1][2] -= duration
        open_events.append([name, start + duration, duration])
    yield from ((name, own) for name, _, own in open_events)
