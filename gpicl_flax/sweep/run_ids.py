"""Run ids: readable names of the points of a sweep, which are safe folder names everywhere and end in a digest."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_MAX_BYTES = 120  # file systems allow 255, but tables and terminals have less room, and other tools add suffixes


def part(name: str, value: Any) -> str:
    """Returns the part of a run id for one value, such as 'hidden_size=16' or 'tokens=aligned'."""
    return f"{_safe(name).lstrip('.+=-') or 'x'}={_safe(value)}"


def model_part(reference: Any) -> str:
    """Returns the part for a model: 'LSTM' for @LSTM() and @models.lstm.LSTM(), 'wide-LSTM' for @wide/LSTM()."""
    scope, slash, selector = str(reference).rpartition("/")
    return _safe(f"{scope}{slash}{selector.rpartition('.')[2]}").lstrip(".+=-") or "model"


def join(parts: Sequence[str], digest: str) -> str:
    """Returns the run id: the first parts, as many as fit, and the digest."""
    kept = list(parts)
    while len("_".join([*kept, digest])) > _MAX_BYTES:  # a character is one byte, because all are ASCII
        kept.pop()
    return "_".join([*(kept or ["point"]), digest])


def _safe(value: Any) -> str:
    """Returns a value as text that consists of ASCII letters, digits and `_.+=-`.

    Accents, and the quotes and brackets of Python, are dropped. Anything else between readable characters becomes a
    hyphen.
    """
    text = unicodedata.normalize("NFKD", str(value))
    text = "".join(c for c in text if not unicodedata.combining(c) and c not in "@()[]{}'\"")
    return re.sub(r"[^A-Za-z0-9_.+=-]+", " ", text).strip().replace(" ", "-")
