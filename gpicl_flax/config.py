"""Configuration: reads gin files into a plain set of bindings, and resolves these to plain values, once.

gin keeps its state in globals, so only this module uses it. Files are parsed and resolved in the parent process, and
everything else receives values.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import gin
from gin import config as gin_config
from gin import config_parser

from gpicl_flax.bindings import direct, moved, parser, reader
from gpicl_flax.bindings.values import Reference, check_plain
from gpicl_flax.errors import UsageError, first_line, one_line

T = TypeVar("T")

# The folder that contains gin/: the package itself if it is installed, its parent in a checkout.
_PACKAGE = pathlib.Path(__file__).parent
_HOME = _PACKAGE if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent
# A file may also be one of a package. Gin says so in its log if it is not, and that is no error.
logging.getLogger().addFilter(lambda record: record.module != "resource_reader")

_registry = moved.registry  # it knows former names as well


class Import(NamedTuple):
    """An import statement of a gin file.

    Attributes:
      module: the full name of the module.
      bound_name: the name by which bindings call it, under gin's dynamic registration.
      path: the full name of what `bound_name` stands for: of `module`, or of its outermost package.
    """

    module: str
    bound_name: str
    path: str


class Configurable(NamedTuple):
    """A configurable that gin knows: its complete name, and the module that defines it."""

    selector: str
    module: str


@dataclasses.dataclass(frozen=True)
class Config:
    """The bindings of one configuration, with macros replaced by their values.

    Attributes:
      bindings: 'scope/Configurable.parameter' -> value. The values are plain Python, with each `Reference` as it was
        written.
      imports: gin's import statements, which load the user's own configurables.
    """

    bindings: Mapping[str, Any]
    imports: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text of a gin file with this configuration."""
        return "".join(
            f"{line}\n" for line in (*self.imports, *(f"{k} = {v!r}" for k, v in sorted(self.bindings.items())))
        )

    @property
    def parsed_imports(self) -> list[Import]:
        """The import statements, in their order."""
        statements = config_parser.ConfigParser("".join(f"{line}\n" for line in self.imports), _Delegate())
        found = [statement for statement in statements if isinstance(statement, config_parser.ImportStatement)]
        return [Import(each.module, each.bound_name(), _bound_path(each)) for each in found]

    @property
    def canonical(self) -> dict[str, str]:
        """The bindings in a normal form, which is equal for configurations with the same meaning.

        Configurables have their full names, but those of this package have only their class names, because modules
        move. A list counts as a tuple, and the order of a dict does not count. 1 and 1.0 differ, because types are
        checked.
        """
        return {canonical_key(key): _canonical_value(value) for key, value in self.bindings.items()}

    def override(self, bindings: Mapping[str, Any]) -> "Config":
        """Returns this configuration with other values for some bindings, however either spells their names."""
        new = {short_key(key): value for key, value in bindings.items()}
        kept = {key: value for key, value in self.bindings.items() if short_key(key) not in new}
        return dataclasses.replace(self, bindings={**kept, **new})

    def without(self, *keys: str) -> "Config":
        """Returns this configuration without some bindings."""
        return dataclasses.replace(self, bindings={k: v for k, v in self.bindings.items() if k not in keys})

    def resolve(self, root: Callable[[], T]) -> tuple[T, str]:
        """Calls the configurable `root` under these bindings.

        Returns:
          Its value, and the operative configuration: every parameter that was used, including defaults, as a gin file.

        Raises:
          UsageError: a binding is unknown, was not used, or has a value that does not fit.
        """
        with self._in_gin():
            return self._call(root), gin.operative_config_str()

    def settings(self, root: Callable[[], T]) -> T:
        """Returns the value of `resolve` without the operative configuration, which takes longer; raises as it does."""
        with self._in_gin():
            return self._call(root)

    def _in_gin(self) -> contextlib.AbstractContextManager[None]:
        for key, value in self.bindings.items():
            check_plain(key, value)
        return _gin(self._load)

    def _load(self) -> None:
        """Gives gin these bindings, in the order of their names."""
        try:
            if self.imports:
                raise direct.NeedsText
            found = [(key, _resolved_key(key), value) for key, value in sorted(self.bindings.items())]
            direct.load((key, own and own.parsed, value) for key, own, value in found)
        except direct.NeedsText:
            reader.load_text(self.text)

    def _call(self, root: Callable[[], T]) -> T:
        """Returns the value of `resolve`, given that gin has these bindings."""
        try:
            value = root()
        except UsageError as error:
            raise UsageError(first_line(error)) from error  # without the lines that gin adds about its location
        except RecursionError as error:
            own = [key for key, value in self.bindings.items() if _is_circular(key, value)]
            raise UsageError(f"{', '.join(own) or 'a value'} refers to itself") from error
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            raise UsageError(_explain(error)) from error
        unused = _unused()
        if unused:
            raise UsageError(f"not used by this run, so probably not what was meant: {', '.join(sorted(unused))}")
        return value


def parse(gin_files: Iterable[str], bindings: Iterable[str] = ()) -> Config:
    """Reads gin files, then single bindings. Later ones override earlier ones.

    Args:
      gin_files: paths, relative to the working folder or to the one that contains the project's gin/.
      bindings: texts such as 'Run.seed = 1'.

    Raises:
      UsageError: a file is missing or wrong, or something that it names is unknown or never used.
    """

    def load():
        reader.load(gin_files, bindings, _HOME)
        gin.finalize()

    with _gin(load):
        config = parse_bindings(gin.config_str())
    for key, value in config.bindings.items():
        _check_no_name_twice(key, value)
    return config


def parse_text(text: str, bindings: Iterable[str] = ()) -> Config:
    """Reads the text of a gin file, then single bindings; raises as `parse` does."""

    def parse_all():
        gin.parse_config([text, *bindings])
        gin.finalize()

    with _gin(parse_all):
        return parse_bindings(gin.config_str())


def differences(old: Config, new: Config) -> list[str]:
    """Returns the differences in meaning between two configurations, a readable text for each binding."""
    was, now = old.canonical, new.canonical
    names = {canonical_key(key): key for key in (*old.bindings, *new.bindings)}
    written = [{canonical_key(key): repr(value) for key, value in c.bindings.items()} for c in (old, new)]
    return [
        f"{names[key]} is {written[0].get(key, 'unset')} there, {written[1].get(key, 'unset')} here"
        for key in sorted(names, key=lambda key: names[key])
        if was.get(key) != now.get(key)
    ]


def find_configurable(name: str) -> Configurable | None:
    """Returns the configurable of that name, complete or not; None if gin knows none or several."""
    try:
        found = _registry.get_match(name)
    except KeyError:  # ambiguous
        return None
    return found and Configurable(found.selector, found.wrapped.__module__)


def configurable_of(value: Any) -> Any:
    """Returns the class or function that a value refers to; None if it refers to none that gin knows."""
    found = _referred(value.text) if isinstance(value, Reference) else None
    return found and found.wrapped


def _referred(reference: str) -> Any:
    """Returns what gin has registered under the name in '@scope/Name()'; None for nothing, or for several."""
    try:
        return _registry.get_match(reference.removeprefix("@").removesuffix("()").rpartition("/")[2])
    except KeyError:  # ambiguous; gin reports this when it resolves the name
        return None


def _bound_path(statement: config_parser.ImportStatement) -> str:
    return statement.module if statement.is_from or statement.alias else statement.bound_name()


def short_key(key: str) -> str:
    """Returns a binding's name as gin writes it, 'Run.seed' for 'gpicl_flax.runs.run.Run.seed'.

    A name that gin does not know is not changed.
    """
    found = _resolved_key(key)
    return key if found is None else found.short


def canonical_key(key: str) -> str:
    """Returns the name of a binding in the form of `Config.canonical`, or unchanged if gin does not know it."""
    found = _resolved_key(key)
    return key if found is None else found.canonical


def _canonical_value(value: Any) -> str:
    match value:
        case Reference(text):
            *scopes, selector = text.removeprefix("@").removesuffix("()").split("/")
            found = _referred(text)
            name = selector if found is None else _canonical_selector(found.selector)
            return f"@{'/'.join([*scopes, name])}{'()' * text.endswith('()')}"
        case dict():
            pairs = sorted(f"{_canonical_value(k)}: {_canonical_value(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            return f"({', '.join(map(_canonical_value, value))})"
    return repr(value)


def _is_circular(key: str, value: Any) -> bool:
    """Returns whether a binding of a configurable calls that configurable."""
    return f"@{canonical_key(key).rpartition('.')[0]}()" in _canonical_value(value)


def _canonical_selector(complete: str) -> str:
    package, _, rest = complete.partition(".")
    return f"{package}.{rest.rpartition('.')[2]}" if package == __package__ else complete


class _Key(NamedTuple):
    """The name of a binding that gin knows: what it stands for, and its other forms."""

    parsed: gin_config.ParsedBindingKey
    short: str
    canonical: str


def _resolved_key(key: str) -> _Key | None:
    """Returns the configurable and its parameter for a name, or None if gin does not know them."""
    try:
        return _parsed_key(key, len(_registry))
    except (IndexError, KeyError, SyntaxError, ValueError):
        return None


@functools.cache  # the points of a sweep have the same few names
def _parsed_key(key: str, registered: int) -> _Key:
    del registered  # a key of the cache, because the meaning of a name can change with each registered configurable
    found = gin_config.ParsedBindingKey.parse(key)
    scope = f"{found.scope}/" if found.scope else ""
    short, canonical = _registry.minimal_selector(found.complete_selector), _canonical_selector(found.complete_selector)
    return _Key(found, f"{scope}{short}.{found.arg_name}", f"{scope}{canonical}.{found.arg_name}")


@contextlib.contextmanager
def _gin(parse_: Callable[[], Any]) -> Iterator[None]:
    """Loads what `parse_` reads into gin's globals, which are empty before and after."""
    gin.clear_config()
    try:
        try:
            parse_()
        except UsageError:
            raise
        except Exception as error:  # a gin file can import anything, and so raise anything
            raise UsageError(f"gin: {one_line(error)}") from error
        yield
    finally:
        gin.clear_config()


def _unused() -> set[str]:
    """Returns the names of the bindings in gin's globals that no call has used."""
    used = gin_config._OPERATIVE_CONFIG
    if all(own.keys() <= used.get(key, {}).keys() for key, own in gin_config._CONFIG.items()):
        return set()
    given, operative = gin.config_str(), gin.operative_config_str()  # both use names as short as possible
    return parse_bindings(given).bindings.keys() - parse_bindings(operative).bindings.keys()


def _explain(error: Exception) -> str:
    """Returns why a configurable refuses its values: the first line of its reason, after its name, which gin adds."""
    called = re.search(r"In call to configurable '(.*?)' ", str(error))
    return f"{called[1]}: {first_line(error)}" if called else one_line(error)


def _check_no_name_twice(key: str, value: Any) -> None:
    """Raises UsageError if a dict in the value of a binding has two names of one binding as keys."""
    if isinstance(value, Mapping):
        names = [short_key(name) if isinstance(name, str) else name for name in value]
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise UsageError(f"{key}: a dict has {twice[0]} twice, under two of its names")
        for each in value.values():
            _check_no_name_twice(key, each)
    elif isinstance(value, list | tuple) and not isinstance(value, Reference):
        for each in value:
            _check_no_name_twice(key, each)


class _Macro(NamedTuple):
    name: str


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate) -> Any:
        return Reference(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name) -> Any:
        return _Macro(macro_name)


def _statements(text: str) -> Iterable[tuple[int, Any]]:
    """Returns the statements of a text with their lines, from 1; raises as `parser.statements` does."""
    # Runs of a sweep have nearly the same lines. A line that is no whole statement cannot be parsed by itself.
    lines = text.split("\n")
    if any(line.startswith((" ", "\t", "\f")) for line in lines):  # a block, or a value of several lines
        return parser.statements(text, _Delegate())
    try:
        return [(number, each) for number, line in enumerate(lines, 1) for each in _statements_of_line(line)]
    except parser.ParseError:
        return parser.statements(text, _Delegate())


@functools.lru_cache(maxsize=4096)
def _statements_of_line(line: str) -> tuple[Any, ...]:
    return tuple(statement for _, statement in parser.statements(line, _Delegate()))


def parse_bindings(text: str) -> Config:
    """Reads the configuration in a text that gin or `Config.text` wrote, without changing gin's globals or importing.

    Raises:
      UsageError: it is not a gin file, a macro has no value of its own or is never used, or there is an include or a
        block.
    """
    macros, bindings, imports = {}, {}, []
    try:
        for line, statement in _statements(text):
            if isinstance(statement, config_parser.ImportStatement):
                imports.append(statement.format())
            elif not isinstance(statement, config_parser.BindingStatement):  # gin resolves includes, writes no blocks
                raise UsageError(f"line {line} is an include or a block, which a written configuration never has")
            elif not statement.arg_name:
                macros[statement.selector] = statement.value
            else:
                scope = f"{statement.scope}/" if statement.scope else ""
                bindings[f"{scope}{statement.selector}.{statement.arg_name}"] = statement.value
    except parser.ParseError as error:
        raise UsageError(f"line {error.mistake.line}: {error.mistake.reason}") from error
    used = set()

    def expand(value, inside=()):
        match value:
            case _Macro(name):
                if name not in macros or name in inside:
                    raise UsageError(f"gin: %{name} has no value of its own")
                used.add(name)
                return expand(macros[name], (*inside, name))
            case dict():
                return {expand(k, inside): expand(v, inside) for k, v in value.items()}
            case Reference():
                return value
            case list() | tuple():
                return type(value)(expand(v, inside) for v in value)
        return value

    bindings = {key: expand(value) for key, value in bindings.items()}
    if macros.keys() - used:
        raise UsageError(f"gin: macro never used: {', '.join(sorted(macros.keys() - used))}")
    return Config(bindings, tuple(imports))
