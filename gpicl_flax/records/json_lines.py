"""Logs with one JSON object in each line, which survive a killed writer."""

import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from etils import epath

from gpicl_flax.errors import Damaged, StorageError, first_line
from gpicl_flax.records import schemas, segments
from gpicl_flax.records.run_folder import parse_json, read_bytes, write_atomically
from gpicl_flax.records.schemas import Schema
from gpicl_flax.runtime import gcs

Row = dict[str, Any]  # one line of a log

_TAIL_BYTES = 1 << 14
_APPENDED_AT_ONCE = 31  # segments that one request appends to a log


class JsonLines:
    """A file of JSON lines to which rows are appended. One process writes it.

    metrics.jsonl holds only results that a run computes, never the time they took, so that an interrupted and resumed
    run writes the same file as an undisturbed one.

    Args:
      path: the file.
      schema: the form of its rows.
    """

    def __init__(self, path: epath.Path, schema: Schema = schemas.METRICS):
        self._path, self._schema = path, schema
        self._pending: list[tuple[int, str]] = []  # the step and the line of each row
        self._object: tuple[str, int] | None = None  # on gs://: the generation and the size of the log itself
        self._segments: dict[str, int] = {}  # on gs://: those since then, and their sizes

    def append(self, row: Row) -> None:
        """Adds a row, which is in the file after the next `flush`."""
        self._pending.append((row.get("step", 0), json.dumps(row) + "\n"))

    def flush(self) -> None:
        """Writes the pending rows, see `flush`."""
        flush([self])

    def rows_until(self, step: int, *, skip_damaged: bool = False) -> list[Row]:
        """Returns the rows that are not later than `step`, see `read`."""
        rows = read(self._path, self._schema, skip_damaged=skip_damaged)
        return [row for row in rows if row["step"] <= step]

    def replace(self, rows: list[Row]) -> None:
        """Makes these the rows of the file, before a run continues after them."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if not gcs.is_remote(self._path):
            write_atomically(self._path, text)
            return
        before = segments.of(self._path)
        self._object = gcs.write({str(self._path): text.encode()}, show=False)[str(self._path)], len(text)
        gcs.remove(before)
        self._segments = {}

    def _append_to_file(self) -> None:
        if not self._pending:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line for _, line in self._pending]
        with self._path.open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write("".join(lines).encode())
                file.flush()
            except OSError:  # a full disk takes a part of them: they are written again later
                os.ftruncate(file.fileno(), end)
                raise
        del self._pending[: len(lines)]

    def _merge(self) -> None:
        """On gs://: appends the segments to the log itself, and removes them."""
        if not self._segments or self._object is None:
            return
        parts, (generation, size) = list(self._segments), self._object
        for start in range(0, len(parts), _APPENDED_AT_ONCE):
            some = parts[start : start + _APPENDED_AT_ONCE]
            size += sum(self._segments[part] for part in some)
            try:
                generation = gcs.append(str(self._path), generation, some)
            except FileExistsError:  # another generation: that of this request, if its answer was lost
                generation, found = gcs.generation_and_size(str(self._path))
                if found != size:
                    raise StorageError(f"{self._path} was changed by another process") from None
            self._object = generation, size
            for part in some:
                del self._segments[part]
            gcs.remove(some)


def flush(logs: Sequence[JsonLines]) -> None:
    """Writes the pending rows of logs: on gs:// all at once, each in one request. If that fails, they stay pending."""
    remote, counts = {}, {}
    for log in logs:
        if not gcs.is_remote(log._path):
            log._append_to_file()
        elif log._pending:
            rows = list(log._pending)  # more may be added meanwhile
            path = segments.path(log._path, rows[0][0])
            remote[path], counts[path] = "".join(line for _, line in rows).encode(), (log, len(rows))
    if not remote:
        return
    gcs.write(remote, show=False)
    for path, (log, count) in counts.items():
        log._segments[path] = len(remote[path])
        del log._pending[:count]


def merge(logs: Sequence[JsonLines]) -> None:
    """On gs://: makes each log one object again, so that it is read in one request."""
    if logs:
        gcs.each(JsonLines._merge, logs, logs[0]._path)


def read(
    path: epath.Path,
    schema: Schema = schemas.METRICS,
    *,
    skip_damaged: bool = False,
    names: Collection[str] | None = None,
    on_damaged: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Returns the rows of a log, without an incomplete last line; no rows if there is no file.

    Args:
      path: the file.
      schema: the form of its rows.
      skip_damaged: leave out damaged lines.
      names: the names in its folder, if they are known.
      on_damaged: called for each line that is left out.

    Raises:
      Damaged: a line is damaged.
    """
    rows: list[Row] = []
    for number, (name, text) in enumerate(_texts(path, schema, names)):
        for line_number, line in enumerate(text.split(b"\n")[:-1], 1):
            try:
                row = _parse(line, f"{name}, line {line_number}", schema)
            except Damaged:
                if not skip_damaged:
                    raise
                on_damaged()
                continue
            if number == 0 or not rows or row["step"] > rows[-1]["step"]:  # see `segments`
                rows.append(row)
    return rows


def read_last(
    path: epath.Path,
    count: int,
    schema: Schema = schemas.METRICS,
    *,
    names: Collection[str] | None = None,
    enough: int | None = None,
) -> list[Row]:
    """Returns the last rows of a log, at most `count`, read from its end, without an incomplete last line.

    Args:
      path: the file.
      count: how many rows are wanted.
      schema: the form of its rows.
      names: the names in its folder, if they are known.
      enough: how many rows do if more need another request; None: `count`.

    Raises:
      Damaged: these rows are damaged.
    """
    if not gcs.is_remote(path):
        return _parse_last(_last_lines(path, count, schema), path, schema)
    lines: list[bytes] = []
    parts = segments.of(path, names)[::-1]
    for part in [*parts, *([str(path)] if names is None or path.name in names else [])]:
        lines = [*_last_remote_lines(part, count - len(lines)), *lines]
        if len(lines) >= (enough or count):
            break
    return _parse_last(lines, path, schema)


def _texts(path: epath.Path, schema: Schema, names: Collection[str] | None) -> Iterator[tuple[str, bytes]]:
    """Yields the names and contents of a log and its segments."""
    if not gcs.is_remote(path):
        if path.exists():
            yield str(path), read_bytes(path, schema.remedy)
        return
    if names is None:
        names = gcs.listing(path.parent, f"{path.stem}.")
    parts = [*([str(path)] if path.name in names else []), *segments.of(path, names)]
    try:
        yield from zip(parts, gcs.read(parts), strict=True)
    except FileNotFoundError:  # its process has just merged it
        yield from _texts(path, schema, None)


def _last_lines(path: epath.Path, count: int, schema: Schema) -> list[bytes]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # others may not end: a pipe without a writer, a device
            raise Damaged(f"{path} is damaged: it is no regular file; {schema.remedy}")
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)

            def tail(length: int) -> bytes:
                file.seek(max(0, size - length))
                return file.read(min(size, length))

            return _lines_from_end(tail, count)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({first_line(error)})") from error


def _last_remote_lines(path: str, count: int) -> list[bytes]:
    try:
        return _lines_from_end(lambda length: gcs.read([path], start=-length)[0], count)
    except FileNotFoundError:
        return []


def _lines_from_end(tail: Callable[[int], bytes], count: int) -> list[bytes]:
    """Returns the last complete lines, given a function that returns the last bytes."""
    length = _TAIL_BYTES
    while True:
        text = tail(length)
        starts = len(text) < length
        # The text before the first line end may be a part of a row, unless it starts the file.
        lines = (b"\n" * starts + text).split(b"\n")[1:-1]
        if len(lines) >= count or starts:
            return lines[-count:]
        length *= 4


def _parse_last(lines: list[bytes], path: epath.Path, schema: Schema) -> list[Row]:
    return [_parse(line, f"{path}, line {len(lines) - index} from its end", schema) for index, line in enumerate(lines)]


def _parse(line: bytes, name: str, schema: Schema) -> Row:
    try:
        row = parse_json(line.decode())
    except UnicodeDecodeError as error:
        raise Damaged(f"{name} is damaged: byte {error.start} is no UTF-8; {schema.remedy}") from error
    except ValueError as error:
        raise Damaged(f"{name} is damaged ({first_line(error)}); {schema.remedy}") from error
    return schema.check(row, name)
