"""TPU chips: what their makers and their compiler say about them.

Peak flops, memory and bandwidth of a chip, and how many cores it has, are those of Cloud TPU's pages on each version
(`System architecture`, docs.cloud.google.com/tpu/docs). How much of the memory a program can have is what the compiler
of libtpu 0.0.50.1 says where a program needs more.
"""

import dataclasses

from gpicl_flax.errors import UsageError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: as in a topology and in `--chip`.
      accelerator: what Cloud TPU calls its slices; a number follows, of chips or of cores.
      cores: of one chip.
      counts_cores: whether the number in the name of a slice is that of cores.
      devices: as which JAX sees one chip; where it is fewer than its cores, these work as one (a megacore).
      peak_flops: a second, of products of bfloat16, which the TPU also makes of float32 unless it is told otherwise.
      hbm_bytes: of memory.
      usable_hbm_bytes: of it, what the programs of the chip's devices can have.
      hbm_bandwidth: bytes a second.
    """

    name: str
    accelerator: str
    cores: int
    counts_cores: bool
    devices: int
    peak_flops: float
    hbm_bytes: int
    usable_hbm_bytes: int
    hbm_bandwidth: float

    def accelerator_type(self, num_chips: int) -> str:
        """What Cloud TPU calls a slice of so many chips."""
        return f"{self.accelerator}-{num_chips * (self.cores if self.counts_cores else 1)}"


def _chip(name, accelerator, cores, counts_cores, devices, teraflops, hbm, usable_hbm, bandwidth) -> Chip:
    """With memory in GiB, and bandwidth in GB/s."""
    memory = round(hbm * GIB), round(usable_hbm * GIB)
    return Chip(name, accelerator, cores, counts_cores, devices, teraflops * 1e12, *memory, bandwidth * 1e9)


CHIPS = {
    chip.name: chip
    for chip in (
        _chip("v4", "v4", 2, True, 1, 275, 32, 30.75, 1200),
        _chip("v5e", "v5litepod", 1, False, 1, 197, 16, 15.75, 819),
        # A program can have a little more than the 95 that the pages name.
        _chip("v5p", "v5p", 2, True, 1, 459, 95, 95.73, 2765),
        _chip("v6e", "v6e", 1, False, 1, 918, 32, 31.24, 1638),
        _chip("tpu7x", "tpu7x", 2, True, 2, 2307, 192, 2 * 94.74, 7380),
    )
}


def chip(name: str) -> Chip:
    """The chip of that name; raises UsageError if there is none."""
    if name not in CHIPS:
        raise UsageError(f"no TPU chip {name!r}; there are {', '.join(CHIPS)}")
    return CHIPS[name]
