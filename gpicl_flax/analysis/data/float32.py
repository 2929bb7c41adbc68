"""Writes numbers measured in float32 with the few digits that distinguish them.

Python and pandas hold them as float64, which takes up to 17 digits each. That is twice as many, and nearly doubles the
size of a gzipped table.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def shortened(value: Any) -> Any:
    """Returns a value from JSON with each float replaced by the shortest one that rounds to the same float32.

    The new float is the float64 with the fewest digits.
    """
    with np.errstate(over="ignore"):
        return _map_floats(value, lambda number: float(str(np.float32(number))))


def restored(value: Any) -> Any:
    """Returns a value from JSON with each float rounded to float32, the inverse of `shortened`."""
    with np.errstate(over="ignore"):
        return _map_floats(value, lambda number: float(np.float32(number)))


def is_float32(value: Any) -> bool:
    """Returns whether a value from JSON is the same after `shortened` and `restored`."""
    # Compared as text, so that NaN equals NaN and 0.0 differs from -0.0.
    return repr(restored(shortened(value))) == repr(value)


def _map_floats(value: Any, change: Callable[[float], float]) -> Any:
    if isinstance(value, float):
        return change(value)
    if isinstance(value, dict):
        return {name: _map_floats(own, change) for name, own in value.items()}
    if isinstance(value, list):
        return [_map_floats(own, change) for own in value]
    return value
