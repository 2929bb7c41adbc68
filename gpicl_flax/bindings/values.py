"""The values that a binding can have: those that a written configuration brings back unchanged."""

import cmath
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpicl_flax.errors import UsageError, brief

_BITS = 64


class Reference(NamedTuple):
    """A gin reference in a binding's value, in its written form: @Transformer() or @Transformer."""

    text: str

    def __repr__(self) -> str:
        return self.text


def check_plain(name: str, value: Any) -> None:
    """Raises UsageError, which names the binding, if its value cannot be written and read back.

    Gin leaves such a binding out of the configurations that it writes, so that a default would take its place.
    """
    match value:
        case bool() | None:
            return
        case int():
            if value.bit_length() > _BITS:
                raise UsageError(f"{name} is an integer of {value.bit_length():,} bits; at most {_BITS} can be used")
        case float() | complex():
            if not cmath.isfinite(value):
                raise UsageError(f"{name} must be finite, not {value}")
        case str():
            if not _is_text(value):
                raise UsageError(f"{name} has a character that no file can hold: {brief(ascii(value), 60)}")
        case Mapping():
            for key, each in value.items():
                check_plain(name, key)
                check_plain(name, each)
        case list() | tuple():
            for each in value:
                check_plain(name, each)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in value
