"""Parses gin statements with gin's own parser, and says in plain words why one cannot be parsed."""

import contextlib
import re
import tokenize
from collections.abc import Iterator
from typing import Any

from gin import config_parser

from gpicl_flax.bindings.text import Mistake, odd_character
from gpicl_flax.errors import UsageError, brief, first_line

_LOWER = {"true": "True", "false": "False", "none": "None", "null": "None"}
_WORDS = {  # for those of the tokenizer and of gin, by how they begin
    "unexpected EOF": "a bracket is not closed",
    "unterminated": "a quote is not closed",
    "too many nested": "brackets are nested too deeply",
    "Unexpected token": "a line must be NAME = VALUE",
    "Couldn't parse statement": "a line must be NAME = VALUE",
    "Expected newline": "a line must end after its value",
}
_NOT_FINITE = ("inf", "infinity", "nan")
_UNQUOTED = re.compile(r"\s*([\w./]+)\s*=\s*([A-Za-z_.~/0-9][\w.:/~+-]*)\s*(?:#.*)?")
_COMPUTED = re.compile(r"[^=]*=\s*([\d.eE_]+(?:\s*(?:\*\*|[-+*/])\s*[\d.eE_]+)+)\s*(?:#.*)?")


class ParseError(Exception):
    """A text cannot be parsed.

    Attributes:
      mistake: what is wrong, and where.
    """

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.mistake = Mistake(line, reason)


def statements(text: str, delegate: config_parser.ParserDelegate) -> Iterator[tuple[int, Any]]:
    """Yields the statements of a text, each with its first line, from 1.

    Raises:
      ParseError: a statement cannot be parsed.
    """
    odd = odd_character(text)
    if odd:
        raise ParseError(*odd)
    parser: Any = None
    try:
        parser = _Parser(text, delegate)
        while (statement := parser.parse_statement()) is not None:
            yield statement.location.line_num, statement
    except UsageError as error:  # an unknown name in a value
        raise ParseError(parser.current_token.start[0] if parser else 1, first_line(error)) from error
    except tokenize.TokenError as error:
        reason, (line, _) = error.args
        raise ParseError(line, _explain(text, line, reason)) from error
    except SyntaxError as error:
        line = error.lineno or 1
        raise ParseError(line, _explain(text, line, error.msg)) from error
    except RecursionError as error:
        raise ParseError(parser.current_token.start[0] if parser else 1, "brackets are nested too deeply") from error


class _Parser(config_parser.ConfigParser):
    """Gin's parser, which also refuses a key that a dict has twice, and names the word that is no value."""

    def __init__(self, text: str, delegate: config_parser.ParserDelegate):
        self._keys: list[list[Any]] = []  # of the dicts around the current token
        super().__init__(text, delegate)

    def _maybe_parse_container(self) -> Any:
        self._keys.append([])
        try:
            return super()._maybe_parse_container()
        finally:
            self._keys.pop()

    def _parse_dict_item(self) -> tuple[Any, Any]:
        location = self._current_location()
        key, value = super()._parse_dict_item()
        with contextlib.suppress(TypeError):
            hash(key)
            if key in self._keys[-1]:
                self._raise_syntax_error(f"the key {key!r} is twice in a dict", location)
            self._keys[-1].append(key)
            return key, value
        self._raise_syntax_error(f"{key!r} cannot be the key of a dict", location)

    def _maybe_parse_basic_type(self) -> Any:
        try:
            return super()._maybe_parse_basic_type()
        except SyntaxError as error:
            token: Any = self._current_token
            raise SyntaxError(_no_value(token.string, token.line[token.end[1] :]), self._current_location()) from error


def _no_value(word: str, rest: str) -> str:
    """Returns why a word, which `rest` follows in its line, is no value."""
    if rest.lstrip().startswith("("):
        return f"{word}(...) is not called here; write the value itself, such as [0, 1, 2] for range(3)"
    if word.lower() in _LOWER:
        return f"write {_LOWER[word.lower()]} for {word}"
    if word.lower() in _NOT_FINITE:
        return f"a number must be finite, not {word}"
    if word.isidentifier():
        return f"a string needs quotes: {word!r}"
    return f"{brief(word, 40)!r} is no value"


def _explain(text: str, line: int, reason: str) -> str:
    """Returns why a line of a text cannot be parsed, given the reason that the parser knows."""
    lines = text.split("\n")
    written = lines[line - 1] if line <= len(lines) else ""
    match = _UNQUOTED.fullmatch(written)
    if match and re.search("[A-Za-z]", match[2]) and match[2].lower() not in (*_LOWER, *_NOT_FINITE):
        return f'a string needs quotes: {match[1]} = "{match[2]}"'
    match = _COMPUTED.fullmatch(written)
    if match:
        return f"nothing is computed here; write the result of {match[1]}"
    reason = next((words for start, words in _WORDS.items() if reason.startswith(start)), reason.strip().rstrip("."))
    return f"{reason}: {written.strip()}" if len(lines) > 1 and written.strip() else reason
