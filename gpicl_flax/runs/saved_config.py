"""Reads the configuration of a run folder or an exported learner, which is data: it may come from anybody.

A gin file can import any module, and its bindings can call any function of a module (`Run.seed = @os.system()`). Here,
nothing is imported except modules that the caller trusts, and only configurables of this package and of these modules
can be called.
"""

import importlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import gin

from gpicl_flax import config
from gpicl_flax.config import Config, Import, Reference
from gpicl_flax.errors import Damaged, UsageError, one_line
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.run import Run

# The packages whose configurables this package registers itself. Those of gin are macros, constants and singletons.
_OWN = ("gpicl_flax", "optax", "gin")
_DYNAMIC = "__gin__.dynamic_registration"


def read(folder: RunFolder) -> Config:
    """Returns the configuration of a run folder, to compare it with others, or to `resolve` it.

    Raises:
      UsageError: the folder is no run, or its config.gin is damaged.
    """
    return parse(folder.read_config(), str(folder.config))


def parse(text: str, name: str) -> Config:
    """Returns the configuration in the text of a config.gin. Nothing is imported.

    Args:
      text: its contents.
      name: what messages call the file.

    Raises:
      Damaged: it is damaged.
    """
    try:
        found = config.parse_bindings(text)
    except UsageError as error:
        raise Damaged(f"{name} is damaged ({one_line(error)[:100]}); restore it from a copy") from error
    if not found.bindings:
        raise Damaged(f"{name} is damaged: it has no bindings; restore it from a copy")
    return found


def resolve(saved: Config, name: str, modules: Iterable[str] = ()) -> Run:
    """Returns the settings that a saved configuration describes.

    Args:
      saved: the configuration.
      name: what messages call its file.
      modules: see `trusted`.

    Raises:
      UsageError: it needs a module that is not trusted, or does not fit this version.
    """
    found = trusted(saved, name, modules)
    try:
        return found.resolve(Run)[0]
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def trusted(saved: Config, name: str, modules: Iterable[str] = ()) -> Config:
    """Returns a saved configuration in a form that can be resolved: its imports are made, as far as they may be.

    Args:
      saved: the configuration.
      name: what messages call its file.
      modules: modules, with all that they contain, that may be imported. Configurables of a module that the program has
        imported already are trusted as well.

    Raises:
      UsageError: it imports a module that is not trusted, or uses a configurable of such a module.
    """
    modules = tuple(modules)
    imports = [each for each in saved.parsed_imports if each.module != _DYNAMIC]
    theirs = [each.module for each in imports if not _is_in(each.module, _OWN)]
    for module in theirs:
        _import(module, name, modules)
    dynamic = imports if len(imports) < len(saved.imports) else []
    names = _Names(dynamic, allowed=(*_OWN, *theirs, *modules, "__main__"), trusted=modules, name=name)
    return Config({names.in_key(key): names.in_value(value) for key, value in saved.bindings.items()})


def _import(module: str, name: str, trusted_modules: tuple[str, ...]) -> None:
    if module in sys.modules:
        return
    if not _is_in(module, trusted_modules):
        raise UsageError(
            f"{name} needs the module {module[:80]}, which is not imported, and a run folder may come from anybody: if "
            f"you trust that module, add --trust_imports {module[:80]}, or import it first"
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # a module can raise anything
        raise UsageError(f"{name}: the module {module} cannot be imported ({one_line(error)[:100]})") from error


class _Names:
    """Checks the names of configurables, and replaces those of dynamic registration by complete ones.

    Args:
      dynamic: the imports of a configuration with gin's dynamic registration, where names begin with that of a module
        and need not be registered. Otherwise none.
      allowed: the modules whose configurables may be called.
      trusted: those whose classes and functions may be registered.
      name: what messages call the file.
    """

    def __init__(self, dynamic: Iterable[Import], *, allowed: Iterable[str], trusted: Iterable[str], name: str):
        self._modules = {each.bound_name: each.path for each in dynamic}
        self._allowed, self._trusted, self._name = tuple(allowed), tuple(trusted), name

    def in_key(self, key: str) -> str:
        scope, slash, rest = key.rpartition("/")
        selector, _, parameter = rest.rpartition(".")
        return f"{scope}{slash}{self._complete(selector)}.{parameter}"

    def in_value(self, value: Any) -> Any:
        match value:
            case Reference(text):
                scope, slash, rest = text.removeprefix("@").removesuffix("()").rpartition("/")
                return Reference(f"@{scope}{slash}{self._complete(rest)}{'()' * text.endswith('()')}")
            case Mapping():
                return {self.in_value(k): self.in_value(v) for k, v in value.items()}
            case list() | tuple():
                return type(value)(self.in_value(each) for each in value)
        return value

    def _complete(self, selector: str) -> str:
        head, _, rest = selector.partition(".")
        full = f"{self._modules[head]}.{rest}" if head in self._modules else selector
        found = config.find_configurable(full) or self._register(full)
        if found is None:
            return selector  # gin refuses it in its own words, because without imports it knows only what is registered
        if not _is_in(found.module, self._allowed):
            raise UsageError(
                f"{self._name} uses {selector[:80]} of the module {found.module[:80]}, which it does not import: if "
                f"you trust that module, add --trust_imports {found.module[:80]}"
            )
        return found.selector if head in self._modules else selector

    def _register(self, full: str) -> config.Configurable | None:
        """Registers a class or function that a trusted module defines, and not one that it only imports."""
        module, _, attribute = full.rpartition(".")
        if not _is_in(module, self._trusted):
            return None
        defined = getattr(sys.modules.get(module), attribute, None)
        if not callable(defined) or not _is_in(str(getattr(defined, "__module__", "")), self._trusted):
            return None
        gin.external_configurable(defined, module=module)
        return config.find_configurable(full)


def _is_in(module: str, packages: Iterable[str]) -> bool:
    """Returns whether a module is one of these packages or inside one of them."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
