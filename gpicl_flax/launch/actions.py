"""What a plan does, as plain data: commands, files and notes. A dry run prints them as lines that can be pasted."""

import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A command that changes something.

    Attributes:
      words: its words; no shell reads them.
    """

    words: tuple[str, ...]


class WriteFile(NamedTuple):
    """A file on this machine, whose folder is made as well."""

    path: pathlib.Path
    text: str


class Note(NamedTuple):
    """A line that a dry run shows, and nothing else."""

    text: str


class Started(NamedTuple):
    """A process that goes on in the background, for a dry run to show.

    Attributes:
      words: its words.
      log: the file that its output is added to.
    """

    words: tuple[str, ...]
    log: pathlib.Path


Action = Command | WriteFile | Note | Started


def command(*words: str | pathlib.Path) -> Command:
    """Returns a command of these words."""
    return Command(tuple(map(str, words)))


def line(words: Sequence[str]) -> str:
    """Returns a command line that a shell reads as these words."""
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:=@%+,-]+", word):
        return word
    if any(not character.isprintable() for character in word):  # one line, whatever it holds
        return "$'" + "".join(map(_escaped, word)) + "'"
    return shlex.quote(word)


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in character.encode())


def shown(action: Action) -> str:
    """Returns an action as lines of shell."""
    match action:
        case Command(words):
            return line(words)
        case Started(words, log):
            return f"{line(words)} >> {_word(str(log))} 2>&1 &"
        case Note(text):
            return f"# {text}"
        case WriteFile(path, text):
            folder, file = _word(str(path.parent)), _word(str(path))
            return f"mkdir -p {folder}\ncat > {file} <<'END_OF_FILE'\n{text}END_OF_FILE"
