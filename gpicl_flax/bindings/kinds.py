"""The kinds of values that settings have, which their annotations declare, and the check of a value against its kind.

`num_layers: Layers` and `eps: Annotated[float, Range(0)]` declare ranges; `check_settings` checks every attribute of a
dataclass, and `check` a single value. The upper bounds are beyond what any machine can hold, so that a slip of the keys
is refused at once rather than tried.
"""

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from gpicl_flax.errors import UsageError, brief

_LARGEST_INT32 = 2**31 - 1  # JAX takes integers as int32,
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)  # and other numbers as float32
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, type(None))


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; without `high` itself if `is_open`."""

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False


Count = Annotated[int, Range(1, _LARGEST_INT32)]
CountOrZero = Annotated[int, Range(0, _LARGEST_INT32)]
Width = Annotated[int, Range(1, 2**20)]
Layers = Annotated[int, Range(1, 2**10)]
Number = Annotated[float, Range(-_LARGEST_FLOAT32, _LARGEST_FLOAT32)]
NotNegative = Annotated[float, Range(0, _LARGEST_FLOAT32)]
Decay = Annotated[float, Range(0, 1, is_open=True)]


def check_settings(settings: Any, gin_name: str | None = None) -> None:
    """Raises UsageError, which names the setting, if an attribute of a dataclass does not have its declared kind.

    Gin files call the dataclass `gin_name`; None: by the name of its class.
    """
    for name, kinds in _kinds(type(settings)).items():
        _check(f"{gin_name or type(settings).__name__}.{name}", getattr(settings, name), kinds)


@functools.cache  # a sweep makes thousands of settings of a class
def _kinds(cls: type) -> dict[str, "list[_Kind]"]:
    """Returns the kinds of the attributes, as far as their annotations can be resolved. Flax adds two of its own."""
    own = {field.name: field.type for field in dataclasses.fields(cls) if field.name not in ("parent", "name")}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError:  # a text that names something which is not imported
        hints = {name: kind for name, kind in own.items() if not isinstance(kind, str)}
    return {name: _alternatives(hints[name]) for name in own if name in hints}


def check(name: str, value: Any, kind: Any) -> None:
    """Raises UsageError if a value is of another kind.

    A kind is a type as in annotations: `int | None`, `Sequence[str]`, `Annotated[float, Range(0, 1)]`. A float may be
    written as an integer, and must be finite. A bool is no number. Any kind of which nothing is known here fits.
    """
    _check(name, value, _alternatives(kind))


def _check(name: str, value: Any, kinds: "Sequence[_Kind]") -> None:
    fitting = next((each for each in kinds if each.fits(value)), None)
    if fitting is None:
        raise UsageError(f"{name} must be {_in_words(kinds)}, not {shown(value)}")
    if fitting.type in (int, float):
        _check_number(name, value, fitting)
    elif fitting.type is Sequence and fitting.arguments:
        for index, each in enumerate(value):
            check(f"{name}[{index}]", each, fitting.arguments[0])
    elif fitting.type is Mapping and fitting.arguments:
        for key, each in value.items():
            check(f"a key of {name}", key, fitting.arguments[0])
            check(f"{name}[{key!r}]", each, fitting.arguments[1])


class _Kind(NamedTuple):
    """One alternative of a kind: a type, its arguments, and the range of its numbers."""

    type: Any
    arguments: tuple[Any, ...] = ()
    range: Range = Range()

    def fits(self, value: Any) -> bool:
        if self.type is Any:
            return True
        if self.type in (int, float):
            return isinstance(value, int if self.type is int else (int, float)) and not isinstance(value, bool)
        if self.type is Sequence:
            return isinstance(value, list | tuple)
        if self.type is Callable:
            return callable(value)
        return isinstance(value, self.type)

    @property
    def words(self) -> str:
        if self.type is float:
            return f"a number from {self.range.low:g} on" if self.range.low > -_LARGEST_FLOAT32 else "a number"
        known = {Sequence: "list or tuple", Mapping: "dict", types.NoneType: "None", Callable: "a function"}
        return known.get(self.type) or self.type.__name__


def _alternatives(kind: Any) -> list[_Kind]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        ranges = [each for each in arguments[1:] if isinstance(each, Range)]
        return [each._replace(range=ranges[0]) if ranges else each for each in _alternatives(arguments[0])]
    if origin in (typing.Union, types.UnionType):
        if complex in arguments:  # numbers of any type, as the functions of optax take them
            return [_Kind(float)]
        return [each for argument in arguments for each in _alternatives(argument)]
    if kind is None:
        return [_Kind(types.NoneType)]
    if origin is collections.abc.Callable or kind is collections.abc.Callable:
        return [_Kind(Callable)]
    if origin in (list, tuple, collections.abc.Sequence):
        return [_Kind(Sequence, arguments)]
    if origin in (dict, collections.abc.Mapping):
        return [_Kind(Mapping, arguments)]
    if origin is None and isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
        return [_Kind({list: Sequence, tuple: Sequence, dict: Mapping}.get(kind, kind))]
    return [_Kind(Any)]


def _check_number(name: str, value: float, kind: _Kind) -> None:
    low, high, is_open = kind.range.low, kind.range.high, kind.range.is_open
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be {_in_words([kind])}, not {value}")
    if kind.type is float and isinstance(value, int) and abs(value) > _LARGEST_INT32:
        raise UsageError(f"{name} = {value} is too large for an integer; write it as {value}.0")
    if value < low:
        if kind.type is int and low == 0:
            raise UsageError(f"{name} must not be negative, but is {value}")
        raise UsageError(f"{name} must be {'a positive integer' if kind.type is int else kind.words}, not {value}")
    if value > high or is_open and value == high:
        bound = f"{high:,}" if isinstance(high, int) else f"{high:g}"
        limit = f"less than {bound}" if is_open else f"at most {bound}"
        raise UsageError(f"{name} must be {limit}, not {value}")


def _in_words(kinds: Sequence[_Kind]) -> str:
    words = " or ".join(dict.fromkeys(kind.words for kind in kinds))
    return words if any(kind.type in (float, Callable) for kind in kinds) else f"of type {words}"


def shown(value: Any) -> str:
    """Returns a value as a gin file has it: objects by the name of their type."""
    if isinstance(value, _PLAIN) and not hasattr(value, "_fields"):
        return brief(repr(value), 80)
    name = getattr(value, "__name__", None)
    return f"@{name}" if name else f"@{type(value).__name__}()"
