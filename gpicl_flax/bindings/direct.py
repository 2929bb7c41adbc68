"""Gives gin the values of a configuration as they are.

A configuration could also be written as a text that gin parses (`reader.load_text`). That takes several times as long
as everything else that resolving it takes, and a sweep resolves thousands. The text says better what is wrong, so that
it is used for whatever is not plainly right.
"""

import re
from collections.abc import Iterable
from typing import Any

import gin
from gin import config as gin_config

from gpicl_flax.bindings import names
from gpicl_flax.bindings.values import Reference
from gpicl_flax.errors import UsageError

_SCOPED = r"(?:[A-Za-z_]\w*/)*[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_KEY = re.compile(_SCOPED, re.ASCII)
_REFERENCE = re.compile(rf"@({_SCOPED})(\(\))?", re.ASCII)
_PLAIN = (bool, int, float, str, type(None))


class NeedsText(Exception):
    """A binding is not plainly right, so only a text of it can be loaded, or can say what is wrong."""


def load(bindings: Iterable[tuple[str, gin_config.ParsedBindingKey | None, Any]]) -> None:
    """Gives gin the values of bindings.

    Args:
      bindings: the name of each as it is written, the parameter that it stands for (None: unknown), and its value.

    Raises:
      NeedsText: one of them is not plainly right; gin has got none of them.
    """
    ready = []
    for name, key, value in bindings:
        if key is None or not _KEY.fullmatch(name):
            raise NeedsText
        ready.append((key, _as_gin_has_it(value)))
    for key, value in ready:
        gin.bind_parameter(key, value)


def _as_gin_has_it(value: Any) -> Any:
    """Returns a value with gin's own references in place of written ones."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is Reference:
        return _reference(value.text)
    if kind in (list, tuple):
        return kind(_as_gin_has_it(each) for each in value)
    if kind is dict:
        return {_as_gin_has_it(key): _as_gin_has_it(each) for key, each in value.items()}
    raise NeedsText


def _reference(text: str) -> gin_config.ConfigurableReference:
    found = _REFERENCE.fullmatch(text)
    if not found:
        raise NeedsText
    try:
        names.configurable(found[1].rpartition("/")[2])
    except UsageError as error:
        raise NeedsText from error
    return gin_config.ConfigurableReference(found[1], evaluate=bool(found[2]))
