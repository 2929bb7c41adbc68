"""The kernels of a profiler's trace: how often each ran, for how long, and for which part of the model.

A trace has a plane for each device and one for the host, a plane has lines, and a line has events. On a GPU the kernels
are the events of streams, on a TPU those of the line 'XLA Ops', and on CPU those events of the host's threads that
belong to an operation of a program.
"""

import collections
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.profiler import ProfileData

_TPU_LINE, _GPU_LINES = "XLA Ops", "Stream"
_HOST, _DEVICE = "/host:CPU", "/device:"
# Control flow spans what it runs, which on CPU may be on other threads. The profiler also marks ends.
_NO_KERNEL = re.compile(r"(while|conditional|call)(\.\d+)?$|end: ")
_EXPRESSION = re.compile(r"%([\w.-]+) = ")  # a TPU's events have the text of the instruction
_SOURCE = re.compile(r'^\s*(?:ROOT )?%([\w.-]+) = .*\bop_name="([^"]*)"', re.MULTILINE)
# Parts of the path of an operation that are not of the model: transformations, methods, control flow.
_NO_PLACE = re.compile(
    r".*\W|(while|body|cond|branch_\d+_fun|eval_jaxpr|closed_call|checkpoint|rematted_computation|parts_\d+)$"
)


class Kernel(NamedTuple):
    """A kernel, with the time of all events of its name.

    Attributes:
      name: as the compiler calls it.
      calls: the number of events. On CPU a kernel that several threads share has one on each.
      milliseconds: their time in all, without that of events within them.
      share: that time over the time of all kernels.
      place: the part of the model and the operation, such as 'block_0/mlp_hidden/dot_general', '' if unknown; with
        'gradient of' for the backward pass. A kernel that the compiler made of several operations has that of its last.
    """

    name: str
    calls: int
    milliseconds: float
    share: float
    place: str


def trace_file(folder: pathlib.Path) -> pathlib.Path:
    """Returns the newest trace that `jax.profiler.trace` left in a folder."""
    return max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)


def costliest_first(
    data: ProfileData,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
    program: str = "",
) -> list[Kernel]:
    """Returns the kernels of all devices in a trace, or of the host if there is no device, by their time.

    Args:
      data: the trace.
      program: the optimised program, as the compiler writes it, for the places of kernels.
    """
    sources = dict(_SOURCE.findall(program))
    calls: collections.Counter[str] = collections.Counter()
    times: dict[str, float] = collections.defaultdict(float)
    places: dict[str, dict[str, None]] = collections.defaultdict(dict)
    with warnings.catch_warnings():
        # The types of jaxlib warn when Python first makes them. Where warnings are errors, that ends the process.
        warnings.simplefilter("ignore", DeprecationWarning)
        lines = list(_lines(list(data.planes)))
    for line in lines:
        for (name, operation), nanoseconds in own_times(line):
            if not _NO_KERNEL.match(name):
                calls[name] += 1
                times[name] += nanoseconds
                places[name][place(sources.get(operation, ""))] = None
    total = sum(times.values())
    return [
        Kernel(name, calls[name], time / 1e6, time / total if total else 0.0, ", ".join(filter(None, places[name])))
        for name, time in sorted(times.items(), key=lambda item: item[1], reverse=True)
    ]


def place(path: str) -> str:
    """Returns the part of the model and the operation from JAX's path of an operation.

    Such a path is 'jit(train_steps)/while/body/transpose(jvp(Transformer))/Transformer.run/block_0/mlp_norm/mul'.
    """
    words = [word for word in path.split("/") if not _NO_PLACE.match(word)]
    return ("gradient of " if "transpose(" in path else "") + "/".join(words)


_Event = tuple[tuple[str, str], float, float]


def _lines(planes: Sequence[Any]) -> Iterator[list[_Event]]:
    """Yields ((name, instruction), start, duration in ns) of the kernels of each line that can have some."""
    devices = [plane for plane in planes if plane.name.startswith(_DEVICE)]
    for plane in devices:
        for line in plane.lines:
            if line.name == _TPU_LINE or line.name.startswith(_GPU_LINES):
                yield [_event(event) for event in line.events]
    if not devices:
        for plane in planes:
            for line in plane.lines if plane.name == _HOST else ():
                yield [_event(event) for event in line.events if any(name == "hlo_op" for name, _ in event.stats)]


def _event(event: Any) -> _Event:
    expression = _EXPRESSION.match(event.name)
    name = expression[1] if expression else event.name
    operation = next((str(value) for key, value in event.stats if key == "hlo_op"), name)
    return (name, operation), event.start_ns, event.duration_ns


def own_times[Name](events: Iterable[tuple[Name, float, float]]) -> Iterator[tuple[Name, float]]:
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
