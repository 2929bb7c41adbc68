"""Logs with one JSON object in each line, which survive a killed writer."""

import json
from typing import Any

import fsspec
from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import write_atomically

Row = dict[str, Any]  # one line of a log

_TAIL_BYTES = 1 << 14


class JsonLines:
    """A file of JSON lines to which rows are appended.

    metrics.jsonl holds only results that a run computes, never the time they took, so that an interrupted and resumed
    run writes the same file as an undisturbed one.
    """

    def __init__(self, path: epath.Path):
        self._path = path
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

    def drop_after(self, step: int) -> list[Row]:
        """Removes rows later than `step`, and an incomplete last line, before a run continues from there.

        Returns:
          The remaining rows.
        """
        rows = read(self._path)
        kept = [row for row in rows if row["step"] <= step]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        return kept


def read(path: epath.Path) -> list[Row]:
    """Returns the rows of a log, without an incomplete last line; no rows if there is no file.

    Raises:
      UsageError: the file is damaged elsewhere.
    """
    lines = path.read_text().split("\n") if path.exists() else [""]
    try:
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})") from error


def read_last(path: epath.Path, count: int) -> list[Row]:
    """Returns the last rows of a log, at most `count`, read from its end, without an incomplete last line."""
    fs, name = fsspec.core.url_to_fs(str(path))
    fs.invalidate_cache()  # because the size of the file grows
    try:
        size, length = fs.size(name), _TAIL_BYTES
        while True:
            start = max(0, size - length)
            # The text before the first line end may be a part of a row, unless it starts the file.
            lines = (b"\n" * (start == 0) + fs.cat_file(name, start=start, end=size)).split(b"\n")[1:-1]
            if len(lines) >= count or start == 0:
                return [json.loads(line) for line in lines[-count:]]
            length *= 4
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})") from error
