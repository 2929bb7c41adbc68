"""Describes the devices of a TPU slice that is not here. Programs compile for them as for real ones.

This needs libtpu, but no TPU.
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
    """Returns the chip and the number of chips of a topology such as 'v5e:4x4x1'.

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
    """Returns the devices of a slice. Called before JAX is used: from then on, JAX's own devices are those of the CPU.

    Raises:
      UsageError: libtpu is missing, or knows no such topology.
    """
    chip, num_chips = parse(topology)
    check_compiler()
    # Answers to questions that libtpu would otherwise ask the machine it runs on.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": chip.accelerator_type(num_chips),
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no process here holds a TPU, so several processes can compile
    }
    jax.config.update("jax_platforms", "cpu")
    # By default libtpu describes each core of a v4 separately, but on a TPU they work as one.
    config = {"chip_config_name": "megacore"} if chip.devices < chip.cores else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **config).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f"the TPU compiler knows no topology {topology!r}: {first_line(error)}") from error
