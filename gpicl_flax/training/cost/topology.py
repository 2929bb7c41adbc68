"""The devices of a TPU slice that is not here: programs compile for them as for real ones.

It needs libtpu, and no TPU.
"""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from gpicl_flax.errors import UsageError, first_line
from gpicl_flax.training.cost import chips
from gpicl_flax.training.cost.chips import Chip


def parse(topology: str) -> tuple[Chip, int]:
    """The chip and the number of chips of a topology such as 'v5e:4x4x1'.

    Raises:
      UsageError: it has another form, or there is no such chip.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", topology)
    if not match:
        raise UsageError(f"a topology is CHIP:AxBxC, such as v5e:4x4x1 or v4:2x2x2, not {topology!r}")
    return chips.chip(match[1]), math.prod(map(int, match[2].split("x")))


def check_compiler() -> None:
    """Raises UsageError if libtpu is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            "the TPU compiler is missing; install it with `pip install -c constraints.txt libtpu` (no TPU is needed)"
        )


def described_devices(topology: str) -> list:
    """The devices of a slice. To be called before JAX is used; from then on, its own devices are those of the CPU.

    Raises:
      UsageError: libtpu is missing, or knows no such topology.
    """
    chip, num_chips = parse(topology)
    check_compiler()
    # What libtpu would otherwise ask the machine it runs on.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": chip.accelerator_type(num_chips),
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no process holds a TPU here, so that several can compile
    }
    jax.config.update("jax_platforms", "cpu")
    # Left alone, libtpu describes each core of a v4, which on a TPU work as one.
    config = {"chip_config_name": "megacore"} if chip.devices < chip.cores else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **config).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f"the TPU compiler knows no topology {topology!r}: {first_line(error)}") from error
