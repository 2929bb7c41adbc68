"""Logs of one JSON object a line, which outlive a killed writer."""

import json
from typing import Any

import fsspec
from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import write_atomically

Row = dict[str, Any]  # one line of a log

_TAIL_BYTES = 1 << 14


class JsonLines:
    """A file of JSON lines that is appended to.

    metrics.jsonl holds only what a run computes, never the time it took, so that an interrupted and resumed run
    leaves the same file as an undisturbed one.
    """

    def __init__(self, path: epath.Path):
        self._path = path
        self._pending: list[str] = []

    def append(self, row: Row) -> None:
        """Adds a row; it is in the file after the next `flush`."""
        self._pending.append(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Writes the pending rows."""
        if self._pending:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if str(self._path).startswith("gs://"):  # objects cannot be appended to
                text = self._path.read_text() if self._path.exists() else ""
                self._path.write_text(text + "".join(self._pending))
            else:
                with self._path.open("a") as file:
                    file.write("".join(self._pending))
            self._pending.clear()

    def drop_after(self, step: int) -> list[Row]:
        """Removes rows later than `step`, and a last line that was cut off, before a run continues from there.

        Returns:
          The rows that are left.
        """
        rows = read(self._path)
        kept = [row for row in rows if row["step"] <= step]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        return kept


def read(path: epath.Path) -> list[Row]:
    """The rows of a log, without a last line that its writer did not finish; no rows if there is no file.

    Raises:
      UsageError: the file is damaged elsewhere.
    """
    lines = path.read_text().split("\n") if path.exists() else [""]
    try:
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})") from error


def read_last(path: epath.Path, count: int) -> list[Row]:
    """The last rows of a log, at most `count`, read from its end.

    A last line that its writer did not finish is left out.
    """
    fs, name = fsspec.core.url_to_fs(str(path))
    fs.invalidate_cache()  # the size of a growing file
    try:
        size, length = fs.size(name), _TAIL_BYTES
        while True:
            start = max(0, size - length)
            # What lies before the first line end may be a part of a row, unless it is the start of the file.
            lines = (b"\n" * (start == 0) + fs.cat_file(name, start=start, end=size)).split(b"\n")[1:-1]
            if len(lines) >= count or start == 0:
                return [json.loads(line) for line in lines[-count:]]
            length *= 4
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error})") from error
