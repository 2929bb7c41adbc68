"""Logs with one JSON object in each line, which survive a killed writer."""

import json
import os
import stat
from typing import Any

import fsspec
from etils import epath

from gpicl_flax.errors import Damaged, first_line
from gpicl_flax.records import schemas
from gpicl_flax.records.run_folder import parse_json, read_bytes, write_atomically
from gpicl_flax.records.schemas import Schema

Row = dict[str, Any]  # one line of a log

_TAIL_BYTES = 1 << 14


class JsonLines:
    """A file of JSON lines to which rows are appended.

    metrics.jsonl holds only results that a run computes, never the time they took, so that an interrupted and resumed
    run writes the same file as an undisturbed one.

    Args:
      path: the file.
      schema: the form of its rows.
    """

    def __init__(self, path: epath.Path, schema: Schema = schemas.METRICS):
        self._path, self._schema = path, schema
        self._pending: list[str] = []

    def append(self, row: Row) -> None:
        """Adds a row, which is in the file after the next `flush`."""
        self._pending.append(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Writes the pending rows."""
        if self._pending:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if str(self._path).startswith("gs://"):  # nothing can be appended to objects there
                text = self._path.read_text() if self._path.exists() else ""
                self._path.write_text(text + "".join(self._pending))
            else:
                with self._path.open("a") as file:
                    file.write("".join(self._pending))
            self._pending.clear()

    def rows_until(self, step: int, *, skip_damaged: bool = False) -> list[Row]:
        """Returns the rows that are not later than `step`, see `read`."""
        return [row for row in read(self._path, self._schema, skip_damaged=skip_damaged) if row["step"] <= step]

    def replace(self, rows: list[Row]) -> None:
        """Makes these the rows of the file, before a run continues after them."""
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows))


def read(path: epath.Path, schema: Schema = schemas.METRICS, *, skip_damaged: bool = False) -> list[Row]:
    """Returns the rows of a log, without an incomplete last line; no rows if there is no file.

    Args:
      path: the file.
      schema: the form of its rows.
      skip_damaged: leave out damaged lines.

    Raises:
      Damaged: a line is damaged.
    """
    rows = []
    lines = read_bytes(path, schema.remedy).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_parse(line, f"{path}, line {number}", schema))
        except Damaged:
            if not skip_damaged:
                raise
    return rows


def read_last(path: epath.Path, count: int, schema: Schema = schemas.METRICS) -> list[Row]:
    """Returns the last rows of a log, at most `count`, read from its end, without an incomplete last line.

    Raises:
      Damaged: these rows are damaged.
    """
    fs, name = fsspec.core.url_to_fs(str(path))
    fs.invalidate_cache()  # because the size of the file grows
    try:
        if name == str(path) and not stat.S_ISREG(os.stat(name).st_mode):
            raise Damaged(f"{path} is damaged: it is no regular file; {schema.remedy}")
        size, length = fs.size(name), _TAIL_BYTES
        while True:
            start = max(0, size - length)
            # The text before the first line end may be a part of a row, unless it starts the file.
            lines = (b"\n" * (start == 0) + fs.cat_file(name, start=start, end=size)).split(b"\n")[1:-1]
            if len(lines) >= count or start == 0:
                last = lines[-count:]
                return [_parse(line, f"{path}, line {k} from its end", schema) for line, k in _from_end(last)]
            length *= 4
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({first_line(error)})") from error


def _from_end(lines: list[bytes]) -> list[tuple[bytes, int]]:
    return [(line, len(lines) - index) for index, line in enumerate(lines)]


def _parse(line: bytes, name: str, schema: Schema) -> Row:
    try:
        row = parse_json(line.decode())
    except UnicodeDecodeError as error:
        raise Damaged(f"{name} is damaged: byte {error.start} is no UTF-8; {schema.remedy}") from error
    except ValueError as error:
        raise Damaged(f"{name} is damaged ({first_line(error)}); {schema.remedy}") from error
    return schema.check(row, name)
