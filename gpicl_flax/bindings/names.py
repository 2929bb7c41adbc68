"""The names of configurables and their parameters, with suggestions for those that gin does not know."""

import difflib
import inspect
from collections.abc import Iterable

from gin import config as gin_config

from gpicl_flax.bindings import moved
from gpicl_flax.errors import UsageError, first_line


def configurable(selector: str) -> gin_config.Configurable:
    """Returns the configurable of that name, in the statement that is being parsed.

    Raises:
      UsageError: there is none, or several.
    """
    try:
        found = gin_config._parse_context().get_configurable(selector)
    except (KeyError, NameError, AttributeError) as error:  # several; or none, under dynamic registration
        raise UsageError(first_line(error).strip("\"'")) from error
    if found is None:
        known = (
            moved.registry.minimal_selector(name) for name, _ in moved.registry.items() if not name.startswith("gin.")
        )
        raise UsageError(f"there is no configurable {selector!r}{_suggestion(selector, known)}")
    return found


def check_parameter(found: gin_config.Configurable, name: str) -> None:
    """Raises UsageError if a configurable has no parameter of that name."""
    if not gin_config._might_have_parameter(found.wrapper, name):
        known = inspect.signature(found.wrapped).parameters
        raise UsageError(f"{found.name} has no parameter {name!r}{_suggestion(name, known)}")


def _suggestion(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
