"""The collectives of a compiled program: the communication between its devices."""

import dataclasses
import re

from gpicl_flax.training.cost.hlo import Array, HloProgram

_KINDS = re.compile(r"(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute)(-start)?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: such as 'all-reduce'.
      arrays: its results on each device.
      times: how often a call of the program executes it.
    """

    kind: str
    arrays: tuple[Array, ...]
    times: int

    @property
    def nbytes(self) -> int:
        """The bytes of all its arrays, for one execution."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def largest(self) -> Array:
        """Its largest array."""
        return max(self.arrays, key=lambda array: array.nbytes)


def collectives(program: HloProgram) -> list[Collective]:
    """Returns the collectives of a program, in the order of its text."""
    found, seen = [], set()
    for computation, times in program.times.items():
        for instruction in program.computations[computation].values():
            match = _KINDS.fullmatch(instruction.operation)
            channel = re.search(r"channel_id=(\d+)", instruction.rest)
            # A fused collective is repeated for each of its phases.
            if not match or channel and channel[1] in seen:
                continue
            seen |= {channel[1]} if channel else set()
            arrays = instruction.arrays
            if match[2] and match[1] in ("all-gather", "collective-permute"):  # the inputs come first, then the results
                arrays = arrays[len(instruction.operands) : 2 * len(instruction.operands)]
            found.append(Collective(match[1], arrays, times))
    return found


def summary(found: list[Collective], steps: int = 1) -> str:
    """Returns for each kind its number in a step, its bytes and its largest array; or 'none'.

    Args:
      found: the collectives of a program.
      steps: the number of steps in a call of the program.
    """
    kinds: dict[str, list[Collective]] = {}
    for collective in found:
        kinds.setdefault(collective.kind, []).append(collective)
    parts = []
    for kind, members in kinds.items():
        number = sum(c.times for c in members) / steps
        megabytes = sum(c.times * c.nbytes for c in members) / steps / 1e6
        largest = max((c.largest for c in members), key=lambda array: array.nbytes)
        parts.append(f"{number:.3g} {kind} of {megabytes:.3g} MB (to {largest.type})")
    return "; ".join(parts) or "none"
