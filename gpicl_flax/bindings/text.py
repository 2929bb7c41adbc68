"""The text of gin files: its encoding, and characters that look like others."""

import codecs
import re
import unicodedata
from typing import NamedTuple

from gpicl_flax.errors import UsageError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?"""' r"|'''(?:\\.|[^\\])*?'''" r'|"(?:\\.|[^"\\\n])*"' r"|'(?:\\.|[^'\\\n])*'" r"|#[^\n]*",
    re.DOTALL,
)


_PLAIN = re.compile(r"[\n\t\f -~]*")


class Mistake(NamedTuple):
    """A fault of a text: its reason, and its line, from 1."""

    line: int
    reason: str


def decode(data: bytes, name: str) -> str:
    """Returns the text in the bytes of a file, without a byte order mark and with plain ends of lines.

    Raises:
      UsageError: they are no UTF-8 text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "is UTF-16 text" if data.startswith(_UTF16) else f"is no UTF-8 text (byte {error.start})"
        raise UsageError(f"gin: {name} {kind}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def odd_character(text: str) -> Mistake | None:
    """Returns the first character outside of strings and comments that is neither ASCII nor a letter.

    Such characters are invisible, as a no-break space is, or look like ASCII, as curly quotes and wide digits do.
    """
    if _PLAIN.fullmatch(text):  # nearly every text, and looking at each character takes longer than parsing it
        return None
    plain = _QUOTED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for position, character in enumerate(plain):
        if _is_odd(character):
            name = unicodedata.name(character, "a control character")
            reason = f"U+{ord(character):04X} ({name}) outside of quotes; delete it, or write it in ASCII"
            return Mistake(plain.count("\n", 0, position) + 1, reason)
    return None


def _is_odd(character: str) -> bool:
    if character.isascii():
        return not (character.isprintable() or character in "\n\t\f")
    return not character.isalpha() or unicodedata.normalize("NFKC", character) != character
