"""Types of Cloud TPU slices, such as v5litepod-16."""

import dataclasses

from gpicl_flax.errors import UsageError
from gpicl_flax.training.cost.chips import CHIPS, Chip

_PLANES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8",
    1024: "8x8x16", 2048: "8x16x16",
}  # fmt: skip
_ON_A_HOST = 4  # chips; one host alone holds up to 8 of chips whose slices are planes


@dataclasses.dataclass(frozen=True)
class SliceType:
    """A type of slices.

    Attributes:
      chip: its chips.
      num_chips: their number.
      topology: how they are connected, such as 4x4.
      hosts: the number of machines that hold them.
    """

    chip: Chip
    num_chips: int
    topology: str
    hosts: int

    @property
    def gke_labels(self) -> dict[str, str]:
        """The labels of its node pools on GKE."""
        prefix = "cloud.google.com/gke-tpu"
        return {f"{prefix}-accelerator": self.chip.gke_accelerator, f"{prefix}-topology": self.topology}


def parse(accelerator_type: str) -> SliceType:
    """Returns the type of that name; raises UsageError if there is none."""
    generation, _, size = accelerator_type.rpartition("-")
    if not generation or not size.isdecimal() or size.startswith("0") or len(size) > 5:
        raise UsageError(
            f"--accelerator_type must be like v5litepod-16, v6e-16, v4-16 or v5p-16, not {accelerator_type!r}"
        )
    known = {chip.accelerator: chip for chip in CHIPS.values() if chip.runtime_version}
    if generation not in known:
        names = ", ".join(f"{name}-" for name in known)
        raise UsageError(f"unknown accelerator type {accelerator_type!r}; known are {names} with a size behind")
    chip = known[generation]
    per_chip = chip.cores if chip.counts_cores else 1
    topologies = _CUBES if chip.is_cube else _PLANES
    number = int(size) // per_chip
    if int(size) % per_chip or number not in topologies:
        unit = "cores" if chip.counts_cores else "chips"
        sizes = ", ".join(str(count * per_chip) for count in topologies)
        raise UsageError(f"there is no {accelerator_type}: sizes of {generation} count {unit}: {sizes}")
    on_a_host = number if not chip.is_cube and number <= 8 else _ON_A_HOST
    return SliceType(chip, number, topologies[number], number // on_a_host)
