"""Reads gin files, with those that they include, and single bindings into gin's globals.

It does what `gin.parse_config_files_and_bindings` does. In addition, it finds a file that lies beside the one that
includes it, refuses values that gin would drop without a word, and names the file and the line of every mistake.
"""

import logging
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import gin
from gin import config as gin_config
from gin import config_parser

from gpicl_flax.bindings import names, parser, text, values
from gpicl_flax.errors import UsageError, brief, first_line, one_line

logger = logging.getLogger(__name__)

_MACRO = "gin.macro"


class _File(NamedTuple):
    """A file that is being read: its path as messages have it, and the real one."""

    name: str
    real: str


def load(gin_files: Iterable[str], bindings: Iterable[str], home: pathlib.Path) -> None:
    """Loads files, then single bindings. Later ones override earlier ones.

    Args:
      gin_files: paths, relative to the working folder or to `home`.
      bindings: texts such as 'Run.seed = 1'.
      home: the folder that contains the project's gin/.

    Raises:
      UsageError: a file is missing or wrong, or names something unknown.
    """
    reader = _Reader(home)
    for path in gin_files:
        reader.read_file(path)
    for each in bindings:
        reader.read_text(each.removeprefix("\ufeff"), where=f"{brief(each, 60)!r}")
    reader.check_macros()


def load_text(written: str) -> None:
    """Loads the text of a configuration, in which line numbers say nothing to a user; raises as `load` does."""
    _Reader(pathlib.Path()).read_text(written, where="")


class _Reader:
    def __init__(self, home: pathlib.Path):
        self._home = home
        self._macros: dict[tuple[str, str, str], tuple[str, list[str]]] = {}  # what each binding uses, and where

    def read_file(self, path: str, including: tuple[_File, ...] = (), where: str = "") -> None:
        """Reads a file, which the last of the files `including` includes."""
        file = self._find(path, including, where)
        if file.real in (other.real for other in including):
            circle = " includes ".join(os.path.basename(each.name) for each in (*including, file))
            raise UsageError(f"gin: {where}files include each other in a circle: {circle}")
        self.read_text(text.decode(_bytes(file.name), file.name), where=file.name, including=(*including, file))

    def read_text(self, written: str, where: str, including: tuple[_File, ...] = ()) -> None:
        """Reads statements, which messages find at `where`."""

        def place(line: int) -> str:
            return f"{where}, line {line}: " if including else f"{where}: " if where else ""

        delegate = _Delegate()
        with gin_config._parse_scope() as context:
            try:
                for line, statement in parser.statements(written, delegate):
                    if isinstance(statement, config_parser.IncludeStatement):
                        self.read_file(statement.filename, including, place(line))
                    elif isinstance(statement, config_parser.ImportStatement):
                        _import(context, statement, place(line))
                    else:
                        self._bind(statement, delegate.take_macros(), place(line))
            except parser.ParseError as error:
                raise UsageError(f"gin: {place(error.mistake.line)}{error.mistake.reason}") from error
            gin_config._IMPORTS.update(context.imports)

    def check_macros(self) -> None:
        """Raises UsageError if a binding uses a macro that has no value."""
        for where, used in self._macros.values():
            for name in used:
                if (name, _MACRO) not in gin_config._CONFIG and not gin_config._CONSTANTS.matching_selectors(name):
                    raise UsageError(f"gin: {where}macro {name} has no value; write {name} = ... as well")

    def _bind(self, statement: Any, macros: list[str], where: str) -> None:
        """Gives gin the value of a binding or a macro, or checks the name that a block of bindings begins with."""
        scope, selector = statement.scope, statement.selector
        try:
            if isinstance(statement, config_parser.BlockDeclaration):
                names.configurable(selector)
                return
            parameter = shown = statement.arg_name
            if parameter:
                names.check_parameter(names.configurable(selector), parameter)
                shown = f"{selector}.{parameter}"
            else:
                scope, selector, parameter = f"{scope}/{selector}" if scope else selector, _MACRO, "value"
                shown = scope
            values.check_plain(shown, statement.value)
            gin.bind_parameter((scope, selector, parameter), statement.value)
        except (UsageError, ValueError) as error:  # gin has a few more rules, of methods and of lists of parameters
            raise UsageError(f"gin: {where}{first_line(error)}") from error
        self._macros[scope, names.configurable(selector).selector, parameter] = where, macros

    def _find(self, path: str, including: tuple[_File, ...], where: str) -> _File:
        """Finds a file beside the one that includes it, here, or where the project's files are; in this order."""
        beside = [os.path.dirname(including[-1].name)] if including else []
        candidates = [os.path.join(folder, path) for folder in (*beside, "", self._home)]
        found = [candidate for candidate in candidates if os.path.exists(candidate)]
        files = [_File(each, os.path.realpath(each)) for each in found if not os.path.isdir(each)]
        if files:
            others = [file for file in files if file.real != files[0].real]
            if including and others and files[0].name == candidates[0]:
                logger.warning("%sincludes %s, and not %s", where, files[0].name, others[0].real)
            return files[0]
        if found:
            raise UsageError(f"gin: {where}{found[0]!r} is a folder, not a gin file")
        if _resource(path):
            return _File(path, path)
        places = "beside that file, here" if including else "here"
        raise UsageError(f"gin: {where}no gin file {path!r}, neither {places} nor in {self._home}")


def _resource(path: str):
    """Returns a reader that other packages have registered for files such as this one, or None."""
    return next((reader for reader, exists in gin_config._FILE_READERS[1:] if exists(path)), None)


def _bytes(path: str) -> bytes:
    reader = None if os.path.exists(path) else _resource(path)
    if reader is None:
        return pathlib.Path(path).read_bytes()
    with reader(path) as file:
        data = file.read()
    return data if isinstance(data, bytes) else data.encode()


def _import(context: gin_config.ParseContext, statement: config_parser.ImportStatement, where: str) -> None:
    try:
        context.process_import(statement)
    except Exception as error:  # a module can raise anything
        raise UsageError(f"gin: {where}{statement.format()}: {one_line(error)}") from error


class _Delegate(gin_config.ParserDelegate):
    """Makes gin's references, and notes the macros that the current statement uses."""

    def __init__(self):
        super().__init__()
        self._macros = []

    def take_macros(self) -> list[str]:
        """Returns the macros that were used since the last call."""
        taken, self._macros = self._macros, []
        return taken

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        names.configurable(scoped_selector.rpartition("/")[2])
        return super().configurable_reference(scoped_selector, evaluate)

    def macro(self, name: str) -> Any:
        self._macros.append(name)
        return super().macro(name)
