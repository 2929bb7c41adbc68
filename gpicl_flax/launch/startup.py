"""The start-up script of a slice: values in shell's quotes, and behind them what every host does with them."""

import base64
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpicl_flax.errors import UsageError
from gpicl_flax.launch.actions import WriteFile, word
from gpicl_flax.launch.plan import Plan

HOST = pathlib.Path(__file__).with_name("host.sh")
_UV_VERSION = "0.13.9"  # brings Python 3.12 to the hosts
_MOST_BYTES = 262_144  # of one metadata value


def path(plan: Plan, shard: int) -> pathlib.Path:
    """Returns where the script of a shard is written here."""
    return plan.folder / f"{plan.id(shard)}.startup.sh"


def scripts(plan: Plan) -> list[WriteFile]:
    """Returns the scripts of all shards, which differ in line 2 alone; raises UsageError if they are too large."""
    found = [WriteFile(path(plan, shard), _script(plan, shard)) for shard in plan.shards]
    if (size := len(found[-1].text.encode())) > _MOST_BYTES:
        raise UsageError(f"the gin files and bindings are too large for a start-up script ({size} bytes)")
    return found


def _script(plan: Plan, shard: int) -> str:
    given, package = plan.options, plan.package
    assert package is not None  # slices always have one
    values = {
        "PACKAGE": package.requirement,
        "WHEEL": package.wheel,
        "CONSTRAINTS": package.constraints,
        "UV_VERSION": _UV_VERSION,
        "COORDINATOR_PORT": given.coordinator_port or "",
        "GPICL": "",
    }
    files = [text for name, data in plan.gin.embedded.items() for text in (name, base64.b64encode(data).decode())]
    arrays = {"DATASETS": [*plan.datasets], "PREPARED": plan.prepared_there, "FILES": files}
    return host_script([f"SHARD={shard}"], plan, values, arrays)


def host_script(
    first: Sequence[str], plan: Plan, values: Mapping[str, Any], arrays: Mapping[str, Sequence[str]]
) -> str:
    """Returns lines of shell, the values of a plan and further ones in quotes, and host.sh."""
    given = plan.options
    common = {
        "ENGINE": given.engine,
        "NAME": given.name,
        "WORKDIR": given.workdir,
        "DIGEST": plan.digest,
        "MAX_RESTARTS": given.max_restarts,
        "RESTART_SECONDS": f"{given.restart_seconds:g}",
        "NUM_SHARDS": given.num_slices,
    }
    lines = ["#!/usr/bin/env bash", *first, "set -euo pipefail"]
    lines += [f"{name}={word(str(value))}" for name, value in {**common, **values}.items()]
    for name, words in {"ARGUMENTS": plan.arguments(), **arrays}.items():
        lines += [f"{name}=(", *(f"  {word(value)}" for value in words), ")"]
    return "\n".join(lines) + "\n\n" + HOST.read_text()
