"""The properties of TPU chips, as their makers and their compiler state them.

Peak flops, memory and bandwidth of a chip, and its number of cores, are those of Cloud TPU's pages on each version
(`System architecture`, docs.cloud.google.com/tpu/docs). The memory that a program can use is what the compiler of
libtpu 0.0.50.1 reports when a program needs more.
"""

import dataclasses

from gpicl_flax.errors import UsageError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: the name in a topology and in `--chip`.
      accelerator: Cloud TPU's name of its slices, before a number of chips or of cores.
      cores: those of one chip.
      counts_cores: whether the number in the name of a slice is that of cores.
      devices: the number of devices as which JAX sees one chip. If it is smaller than the number of cores, these work
        as one (a megacore).
      peak_flops: a second, for products of bfloat16. By default the TPU also computes products of float32 so.
      hbm_bytes: bytes of memory.
      usable_hbm_bytes: bytes that the programs of the chip's devices can use.
      hbm_bandwidth: bytes a second.
      is_cube: whether slices are cubes of chips (4x4x4) rather than planes (4x4).
      runtime_version: Cloud TPU's software for the hosts of a slice; '' where slices cannot be asked for by that API.
      gke_accelerator: the name of its node pools on GKE.
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
    is_cube: bool
    runtime_version: str
    gke_accelerator: str

    def accelerator_type(self, num_chips: int) -> str:
        """Returns Cloud TPU's name for a slice of `num_chips` chips."""
        return f"{self.accelerator}-{num_chips * (self.cores if self.counts_cores else 1)}"


def _chip(name, accelerator, cores, counts_cores, devices, teraflops, hbm, usable_hbm, bandwidth, *software) -> Chip:
    """Returns a chip, given its memory in GiB and its bandwidth in GB/s."""
    memory = round(hbm * GIB), round(usable_hbm * GIB)
    return Chip(name, accelerator, cores, counts_cores, devices, teraflops * 1e12, *memory, bandwidth * 1e9, *software)


_V5E_ON_GKE = "tpu-v5-lite-podslice"
CHIPS = {
    chip.name: chip
    for chip in (
        _chip("v4", "v4", 2, True, 1, 275, 32, 30.75, 1200, True, "tpu-ubuntu2204-base", "tpu-v4-podslice"),
        _chip("v5e", "v5litepod", 1, False, 1, 197, 16, 15.75, 819, False, "v2-alpha-tpuv5-lite", _V5E_ON_GKE),
        # A program can use slightly more than the 95 GiB in the documentation.
        _chip("v5p", "v5p", 2, True, 1, 459, 95, 95.73, 2765, True, "v2-alpha-tpuv5", "tpu-v5p-slice"),
        _chip("v6e", "v6e", 1, False, 1, 918, 32, 31.24, 1638, False, "v2-alpha-tpuv6e", "tpu-v6e-slice"),
        _chip("tpu7x", "tpu7x", 2, True, 2, 2307, 192, 2 * 94.74, 7380, True, "", "tpu7x"),
    )
}


def chip(name: str) -> Chip:
    """Returns the chip of that name; raises UsageError if there is none."""
    if name not in CHIPS:
        raise UsageError(f"no TPU chip {name!r}; there are {', '.join(CHIPS)}")
    return CHIPS[name]
