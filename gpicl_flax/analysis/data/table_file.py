"""Reads and writes one table as a CSV file, plain or gzipped, without changing its values."""

import csv
import dataclasses
import gzip
import io
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from etils import epath

from gpicl_flax.analysis.data import float32
from gpicl_flax.errors import UsageError, first_line

REMEDY = "restore it from a copy, or write the tables again with `gpicl report WORKDIR --tables FOLDER`"
_LONGEST_CELL = 2**30  # characters; the csv module stops at 2^17, which the diagnostics of many heads exceed
_SHOWN = 40  # characters of a cell in an error


def write(
    path: epath.Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    text: Collection[str],
    in_float32: Collection[str] = (),
) -> None:
    """Writes the rows. A column that a row does not have is an empty cell. The same rows give the same bytes.

    Args:
      path: ends in .gz for a gzipped file.
      columns: in their order.
      rows: dicts by column.
      text: the columns whose values are text. All others hold JSON: numbers, true, false, null, lists, objects.
      in_float32: the columns of JSON whose floats are all float32, for which `float32.is_float32` holds.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([text_cell(column) for column in columns])
    for row in rows:
        cells = []
        for column in columns:
            if column not in row:
                cells.append("")
            elif column in text:
                cells.append(text_cell(row[column]))
            else:
                cells.append(json_cell(float32.shortened(row[column]) if column in in_float32 else row[column]))
        writer.writerow(cells)
    data = buffer.getvalue().encode()
    path.write_bytes(_compressed(data) if path.suffix == ".gz" else data)


def _compressed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    # The archive has neither a name nor a time, so that its bytes depend on the data alone.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def text_cell(value: str) -> str:
    """Returns the text itself, or its JSON where a CSV file may not keep the text.

    That is if it is empty, begins with a quote or has characters that are not printable.
    """
    value = str(value)
    return value if value.isprintable() and value and not value.startswith('"') else json.dumps(value)


def json_cell(value: Any) -> str:
    """Returns a value as JSON, with all the digits that its numbers need. Numbers of numpy are like those of Python."""
    return json.dumps(value, default=lambda scalar: scalar.item())


def _parse_text(cell: str) -> str:
    value = json.loads(cell) if cell.startswith('"') else cell
    if not isinstance(value, str):
        raise ValueError(cell)
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row of a table. Its methods raise UsageError where the file holds something else.

    Attributes:
      path: the path of the file.
      line: the line of the file in which the row ends, counted from 1.
      cells: the text of each cell, by column.
      in_float32: the columns whose floats are float32.
    """

    path: epath.Path
    line: int
    cells: dict[str, str]
    in_float32: Collection[str] = ()

    def __contains__(self, column: str) -> bool:
        """Returns whether the row has a value in that column."""
        return bool(self.cells.get(column))

    def text(self, column: str) -> str:
        """Returns a value that was written as text."""
        try:
            return _parse_text(self.cells[column])
        except ValueError:
            self._refuse(column, "text")

    def json(self, column: str, *types: type) -> Any:
        """Returns a value that was written as JSON. If types are given, the value must be of one of them."""
        try:
            value = json.loads(self.cells[column])
        except (ValueError, RecursionError):
            self._refuse(column, "JSON")
        if types and not isinstance(value, types):
            self._refuse(column, " or ".join(kind.__name__ for kind in types))
        return float32.restored(value) if column in self.in_float32 else value

    def refuse(self, why: str) -> NoReturn:
        """Raises UsageError, with the reason `why` the row is wrong."""
        raise UsageError(f"{self.path}, line {self.line}: {why}; {REMEDY}")

    def _refuse(self, column: str, wanted: str) -> NoReturn:
        self.refuse(f"column {column[:_SHOWN]} holds {self.cells[column][:_SHOWN]!r}, which is no {wanted}")


def read(path: epath.Path, columns: Sequence[str], *, in_float32: Collection[str] = ()) -> list[Row]:
    """Returns the rows of a file that `write` wrote.

    Args:
      path: the path of the file.
      columns: those that it must have; it may have more.
      in_float32: the same columns as for `write`.

    Raises:
      UsageError: the file is missing, damaged, or another table.
    """
    (_, header), *lines = _lines(path) or [(1, [])]
    try:
        names = [_parse_text(cell) for cell in header]
    except ValueError:
        raise UsageError(f"{path}, line 1: names of columns are damaged; {REMEDY}") from None
    if lacking := [column for column in columns if column not in names]:
        raise UsageError(f"{path}, line 1: there is no column {', '.join(lacking)}; {REMEDY}")
    if len(set(names)) < len(names):
        raise UsageError(f"{path}, line 1: two columns have one name; {REMEDY}")
    for line, cells in lines:
        if len(cells) != len(names):
            raise UsageError(f"{path}, line {line}: {len(cells)} cells in place of {len(names)}; {REMEDY}")
    return [Row(path, line, dict(zip(names, cells, strict=True)), in_float32) for line, cells in lines]


def _lines(path: epath.Path) -> list[tuple[int, list[str]]]:
    """Returns the cells of each row, header included, with the line where it ends."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(reader.line_num, cells) for cells in reader]
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; {REMEDY}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        kind = "a gzipped CSV file" if path.suffix == ".gz" else "a CSV file"
        raise UsageError(f"{path} cannot be read as {kind} ({first_line(error)[:_SHOWN]}); {REMEDY}") from error
    finally:
        csv.field_size_limit(limit)
