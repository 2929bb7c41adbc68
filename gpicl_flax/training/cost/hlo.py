"""Reads an optimised program (HLO) as the compiler writes it: its instructions, and how often a call runs them."""

import dataclasses
import math
import re
from collections.abc import Iterator

_INSTRUCTION = re.compile(r"^\s*(ROOT )?(%\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLS = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=(%[\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_ELSEWHERE = re.compile(r"S\(\d+\)")  # in a layout, this means: not in HBM


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a program, on each device: its type, such as 'f32[256,10]', and whether it is in HBM."""

    type: str
    in_hbm: bool

    @property
    def nbytes(self) -> int:
        """The size without padding."""
        kind, _, dimensions = self.type.removesuffix("]").partition("[")
        bits = re.search(r"\d+", kind)
        size = math.prod(int(n) for n in dimensions.split(",") if n)
        return math.ceil(size * int(bits[0] if bits else 8) / 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: the name that others refer to.
      arrays: its results.
      operation: such as 'fusion'.
      operands: names of the instructions that it reads.
      rest: the text after its opening parenthesis.
      is_root: whether it is the result of its computation.
    """

    name: str
    arrays: tuple[Array, ...]
    operation: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls, without the condition of a loop."""
        branches = [name.strip() for group in _BRANCHES.findall(self.rest) for name in group.split(",")]
        return [*_CALLS.findall(self.rest), *branches]


class HloProgram:
    """A program.

    Attributes:
      computations: by name; the instructions of each, by name.
      times: how often a call of the program runs each computation. A loop of unknown length counts once.

    Raises:
      ValueError: the text is not a program.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        entry = name = None
        for line in text.splitlines():
            if line.endswith("{") and line.startswith(("%", "ENTRY")):
                name = _first(r"(%[\w.-]+)", line)
                entry = name if line.startswith("ENTRY") else entry
                self.computations[name] = {}
            elif line.startswith("}"):
                name = None
            elif name and (match := _INSTRUCTION.match(line)):
                root, own, type_, operation, rest = match.groups()
                operands = tuple(re.findall(r"%[\w.-]+", rest.partition(")")[0]))
                instruction = Instruction(own, arrays(type_), operation, operands, rest, bool(root))
                self.computations[name][own] = instruction
        if entry is None:
            raise ValueError("no program: it has no entry")
        self.times: dict[str, int] = {}
        self._count(entry, 1)

    @property
    def num_loops(self) -> int:
        """The number of loops that a call of the program reaches."""
        return sum(i.operation == "while" for name in self.times for i in self.computations[name].values())

    def _count(self, name: str, times: int) -> None:
        self.times[name] = self.times.get(name, 0) + times
        for instruction in self.computations[name].values():
            turns = self._turns(instruction) if instruction.operation == "while" else 1
            for called in instruction.called:
                if called in self.computations:
                    self._count(called, times * turns)

    def _turns(self, loop: Instruction) -> int:
        """Returns the iterations of a loop that counts up to a constant, like those of `jax.lax.scan`."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:  # not on TPU
            return int(known[1])
        condition = self.computations[_first(r"condition=(%[\w.-]+)", loop.rest)].values()
        limits = [i.rest.partition(")")[0] for i in condition if i.operation == "constant"]
        counts = any("direction=LT" in i.rest for i in condition)
        return int(limits[0]) if counts and len(limits) == 1 and limits[0].isdecimal() else 1

    def executed(self) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
        """Yields the instructions that are not inside another one, with their computations and how often they run."""
        inside = {
            called
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.operation not in ("while", "conditional", "call", "async-start")
            for called in instruction.called
        }
        for name, computation in self.computations.items():
            if name in self.times and name not in inside:
                for instruction in computation.values():
                    yield instruction, computation, self.times[name]


def _first(pattern: str, text: str) -> str:
    """Returns the first group of a pattern that every program matches here."""
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def arrays(type_: str) -> tuple[Array, ...]:
    """Returns the arrays in the text of a type, which may be a tuple."""
    return tuple(
        Array(f"{kind}[{dimensions}]", not _ELSEWHERE.search(layout))
        for kind, dimensions, layout in _ARRAY.findall(type_)
    )
