"""Reads CSV files as text: a header, and rows that have as many fields as the header."""

import bz2
import csv
import dataclasses
import gzip
import io
import itertools
import logging
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets import paths

_END = "\0end"  # after the last line; where it is part of a field, a quotation mark was never closed
_SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'", " ": "a blank"}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """The fields of a CSV file, without blanks at their ends.

    Attributes:
      names: of the columns, each another one.
      rows: a field for each column.
      lines: the line of the file in which each row begins, counted from 1.
      doubt: a clause for messages about a header that does not look like one, or ''.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    doubt: str


def read(path: str) -> CsvTable:
    """Reads a CSV file in UTF-8, also a compressed one, or one that comes through a pipe.

    Empty lines, fields without name or content at the end of each row, and a first column without a name that numbers
    the rows are left out.

    Raises:
      UsageError: it cannot be read, a row has more or fewer fields than the header, or two columns have one name.
    """
    records = [(line, fields) for line, fields in _records(path, _text(path)) if fields]
    records = [*itertools.dropwhile(lambda record: record[1] == [""], records)]
    if not records:
        raise UsageError(f"{path}: not a readable CSV file (it is empty)")
    header = records[0][1]
    if len(header) > 1:
        records = [(line, fields) for line, fields in records if fields != [""]]
    lines, rows = [line for line, _ in records[1:]], [fields for _, fields in records[1:]]
    header, rows = _without_empty_end(header, rows)
    doubt = _doubt(header)
    for number, (line, fields) in enumerate(zip(lines, rows, strict=True), 1):
        if len(fields) != len(header):
            raise UsageError(
                f"{path}: row {number} (line {line}) has {len(fields)} field{'' if len(fields) == 1 else 's'}, the "
                f"header has {len(header)}{doubt or _doubt_of_row(fields, len(header))}"
            )
    doubt = doubt or _doubt_of_names(header)
    if rows and header[0] in ("", "Unnamed: 0") and _number_rows([fields[0] for fields in rows], header[0]):
        logger.warning("%s: the first column has no name and numbers the rows; it is left out", path)
        header, rows = header[1:], [fields[1:] for fields in rows]
    if "" in header:
        raise UsageError(f"{path}: column {1 + header.index('')} has no name; give it one, or remove it{doubt}")
    for name, count in Counter(header).items():
        if count > 1:
            raise UsageError(f"{path}: {count} columns are named {shown(name)}; give each a name of its own{doubt}")
    return CsvTable(header, rows, lines, doubt)


def shown(field: str) -> str:
    """Returns a field as messages show it: in quotation marks, and not all of a long one."""
    return repr(field if len(field) <= 40 else f"{field[:37]}...")


def shortened(names: str, length: int = 60) -> str:
    """Returns names of columns as messages show them: in one line of at most so many characters."""
    names = " ".join(names.split())
    return names if len(names) <= length else f"{names[: length - 3]}..."


def is_number(text: str) -> bool:
    """Whether a field is a number, which NaN and infinity are, too."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(path: str) -> str:
    found = paths.kind(path)
    if found in ("folder", "socket"):
        raise UsageError(f"{path}: is a {found}, not a file")
    with open(path, "rb") as file:
        if found == "device" and not file.isatty():  # /dev/zero has no end
            raise UsageError(f"{path}: is a device, not a file")
        data = file.read()
    try:
        unpack = next((unpack for magic, unpack in _COMPRESSED.items() if data.startswith(magic)), bytes)
        return unpack(data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not a readable CSV file (byte {error.start} is not UTF-8); save it as text in UTF-8"
        ) from error
    except Exception as error:  # the libraries of archives raise many kinds
        raise UsageError(f"{path}: not a readable CSV file ({one_line(error)})") from error


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"it is an archive or a spreadsheet of {len(names)} files; save it as CSV")
        return archive.read(names[0])


_COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
    b"PK\x03\x04": _unzip,
}


def _records(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the line in which each record begins, and its fields; no fields for an empty line."""
    reader = csv.reader(itertools.chain(io.StringIO(text, newline=""), [_END]), skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except csv.Error as error:
            raise UsageError(f"{path}: line {line}: not readable as CSV ({error})") from error
        if fields == [_END]:
            return
        if fields and fields[-1].endswith(_END):
            raise UsageError(f"{path}: line {line}: a quotation mark is opened and never closed")
        yield line, [field.strip() for field in fields]


def _without_empty_end(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Leaves out what commas at the end of every row add."""
    num_named = max((place for place, name in enumerate(header, 1) if name), default=len(header))
    same_length = len({len(fields) for fields in rows}) <= 1
    if same_length and all(len(fields) >= num_named and not any(fields[num_named:]) for fields in rows):
        return header[:num_named], [fields[:num_named] for fields in rows]
    return header, rows


def _doubt(header: list[str]) -> str:
    if header[0].startswith("#"):
        return f"; its first line {shown(','.join(header))} looks like a comment: the header must come first"
    if len(header) == 1:
        for separator, name in _SEPARATORS.items():
            if separator in header[0]:
                return f"; the header has one column, {shown(header[0])}: is the separator {name}? It must be a comma"
    return ""


def _doubt_of_names(header: list[str]) -> str:
    if any(map(is_number, header)):
        return f"; its first line {shown(','.join(header))} looks like data: the header must come first"
    return ""


def _doubt_of_row(fields: list[str], num_columns: int) -> str:
    if len(fields) < num_columns:
        return ""
    if not any(fields[num_columns:]):
        return "; it ends with a comma, as other rows do not"
    return "; a number has a point and no comma, a text with commas has quotation marks"


def _number_rows(fields: list[str], name: str) -> bool:
    """Whether the first column holds the numbers of rows or, if it has no name at all, their names.

    Tables of pandas and R have such columns. 'Unnamed: 0' is what pandas makes of one when it reads it.
    """
    return all(field.isdecimal() for field in fields) or not name and not any(map(is_number, fields)) and all(fields)
