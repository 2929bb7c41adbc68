"""Run ids of version 0.1, by which the folders of its sweeps are found."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any


def run_id(values: Sequence[tuple[str, Any]], bindings: Mapping[str, Any], imports: Sequence[str]) -> str:
    """Returns the run id of a point in version 0.1.

    Args:
      values: label axes with their labels, then bindings with their values, for all axes of the grid.
      bindings: the whole configuration, with each name as it was written.
      imports: gin's import statements.
    """
    names = []
    for key, value in values:
        name = key.rpartition(".")[2]
        text = re.sub(r"[^\w.+-]+", "", str(value).replace(",", "-"))
        names.append(text if name == "model" else f"{name}={text}")
    lines = [*imports, *(f"{key} = {value!r}" for key, value in sorted(bindings.items()))]
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()[:8]
    return "_".join([*names, digest])[-200:]
