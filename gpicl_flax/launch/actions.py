"""The actions of a plan, as plain data: commands and files. A dry run prints them as lines that can be pasted."""

import pathlib
import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple


class Command(NamedTuple):
    """A command that changes something.

    Attributes:
      words: its words; no shell reads them.
      failure: what it means if it fails.
    """

    words: tuple[str, ...]
    failure: str = ""


class WriteFile(NamedTuple):
    """A file on this machine, whose folder is made as well."""

    path: pathlib.Path
    text: str


Action = Command | WriteFile | str  # a string is a line that a dry run shows, and nothing else


def command(*words: str | pathlib.Path, failure: str = "") -> Command:
    """Returns a command of these words."""
    return Command(tuple(map(str, words)), failure)


def line(words: Iterable[str | pathlib.Path]) -> str:
    """Returns a command line that a shell reads as these words."""
    return " ".join(map(word, words))


def word(value: str | pathlib.Path) -> str:
    """Returns what a shell reads as one word, on one line whatever it holds."""
    value = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./:=@%+,-]+", value):
        return value
    if value.isprintable():
        return shlex.quote(value)
    return "$'" + "".join(map(_escaped, value)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def shown(action: Action) -> str:
    """Returns an action as lines of shell."""
    if isinstance(action, str):
        return action
    if isinstance(action, Command):
        return line(action.words)
    folder, file = word(action.path.parent), word(action.path)
    return f"mkdir -p {folder}\ncat > {file} <<'END_OF_FILE'\n{action.text}END_OF_FILE"
