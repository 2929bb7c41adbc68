"""The contents of a run folder at one moment, for those who read much of it."""

import contextlib
import fnmatch
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from gpicl_flax.records import json_lines, lease_files, schemas
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.lease_files import LeaseRecord
from gpicl_flax.records.run_folder import RunFolder, ended_by, read_json, read_text
from gpicl_flax.records.schemas import Schema
from gpicl_flax.runtime import gcs


class Snapshot:
    """A run folder, listed once. On gs:// this is one request, which shows the contents of small files as well.

    A file is read when it is asked for. Checkpoints are not looked at.

    Args:
      folder: the run folder, which need not exist.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        # By their paths in the folder. The entries are those of gs://.
        self._files: Mapping[str, gcs.Entry | None]
        self._files = gcs.listing(folder.path) if gcs.is_remote(folder.path) else _scan(folder)

    @property
    def ended(self) -> str | None:
        """The marker with which the run ended, or None."""
        return ended_by(self._files)

    def has(self, file: epath.Path) -> bool:
        """Returns whether there is this file of the folder."""
        return file.name in self._files

    def newest_lease(self) -> LeaseRecord | None:
        """Returns the newest record of a lease, or None."""
        try:
            return lease_files.newest(self.folder.path, self._files)
        except FileNotFoundError:  # another process has acquired the next one
            return lease_files.LeaseFiles(self.folder.path).newest()

    def read_text(self, file: epath.Path, remedy: str) -> str:
        """Returns the text of a file, see `run_folder.read_text`."""
        return read_text(file, remedy, self._contents(file))

    def read_run_info(self) -> dict[str, Any]:
        """Returns the contents of run.json; raises Damaged if it cannot be read."""
        return self._read_json(self.folder.run_info, schemas.RUN_INFO)

    def evaluation_files(self) -> list[epath.Path]:
        """Returns the files with the run's own meta-tests, in the order of their steps."""
        pattern = f"{self.folder.evaluations.name}/step_????????.json"
        return [self.folder.path / name for name in sorted(fnmatch.filter(self._files, pattern))]

    def read_evaluation(self, file: epath.Path) -> dict[str, Any]:
        """Returns a meta-test; raises Damaged if it cannot be read."""
        return self._read_json(file, schemas.EVALUATION)

    def read_rows(self, log: epath.Path, schema: Schema = schemas.METRICS, **options) -> list[Row]:
        """Returns the rows of a log, see `json_lines.read`."""
        return json_lines.read(log, schema, names=self._files, **options)

    def read_last_rows(self, log: epath.Path, count: int, schema: Schema = schemas.METRICS, **options) -> list[Row]:
        """Returns the last rows of a log, see `json_lines.read_last`."""
        return json_lines.read_last(log, count, schema, names=self._files, **options)

    def _read_json(self, file: epath.Path, schema: Schema) -> Any:
        return read_json(file, schema, self._contents(file))

    def _contents(self, file: epath.Path) -> bytes | None:
        entry = self._files.get(file.name)
        return entry.contents if entry else None


def _scan(folder: RunFolder) -> dict[str, None]:
    """Returns the paths of the files of a local run folder, and those in the folders that matter here."""
    names = folder.names()
    for inner in (folder.evaluations.name, lease_files.FOLDER):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names += [f"{inner}/{name}" for name in os.listdir(folder.path / inner)]
    return dict.fromkeys(names)
