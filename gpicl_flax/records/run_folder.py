"""The run folder: the only interface between a run and everything that comes after it."""

import contextlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from etils import epath

from gpicl_flax.errors import Damaged, UsageError, first_line
from gpicl_flax.records import schemas
from gpicl_flax.records.schemas import Schema
from gpicl_flax.runtime import gcs

DONE = "DONE"
DIVERGED = "DIVERGED"
PARAMETERS = "parameters.npz"  # the parameters of an exported learner, which has no checkpoints


class RunFolder:
    """Paths of one run's folder, local or gs://, and its small files.

    It contains config.gin (all bindings), operative_config.gin (with every default used), run.json (the info about the
    run), metrics.jsonl, timing.jsonl, eval/, checkpoints/, and at the end one of the markers DONE and DIVERGED. A
    run that its sweep may end early also has early_stop.json, see `plateau_rule`.

    Raises:
      UsageError: the path is on another kind of storage.
    """

    def __init__(self, path: epath.PathLike):
        _check_scheme(str(path))
        path = epath.Path(path)
        # Orbax needs absolute paths, and epath would treat gs:// as a relative one.
        self.path = path if "://" in str(path) else path.expanduser().absolute()
        self.config = self.path / "config.gin"
        self.operative_config = self.path / "operative_config.gin"
        self.run_info = self.path / "run.json"
        self.early_stop = self.path / "early_stop.json"  # only of runs that a sweep may end early
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.evaluations = self.path / "eval"
        self.checkpoints = self.path / "checkpoints"
        self.learning_curve = self.path / "learning_curve.png"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def ended(self) -> str | None:
        """The marker with which the run ended, or None."""
        return ended_by(self.names())

    def names(self) -> list[str]:
        """Returns the names in the folder, ascending, in one request on gs://; none if there is no folder."""
        if gcs.is_remote(self.path):
            return gcs.names(self.path)
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @property
    def is_exported(self) -> bool:
        """Whether it holds an exported learner rather than a run."""
        return (self.path / PARAMETERS).exists()

    def mark(self, marker: str, text: str = "") -> None:
        """Marks the run as ended with DONE or DIVERGED."""
        write_atomically(self.path / marker, text)

    def read_marker(self, marker: str) -> str:
        """Returns the text of a marker."""
        return read_text(self.path / marker, f"delete it, and `gpicl train` ends the run again as {marker}").strip()

    def read_config(self) -> str:
        """Returns the text of config.gin; raises UsageError if the folder is no run, or the file is damaged."""
        if not self.config.exists():
            raise UsageError(f"{self} is not a run folder: it has no {self.config.name}")
        return read_text(self.config, "restore it from a copy")

    def read_run_info(self, *needed: str) -> dict[str, Any]:
        """Returns the contents of run.json; raises Damaged if it cannot be read or has not all the `needed` keys."""
        info = read_json(self.run_info, schemas.RUN_INFO)
        if lacking := [key for key in needed if key not in info]:
            raise Damaged(f"{self.run_info} is damaged: it has no {lacking[0]}; {schemas.RUN_INFO.remedy}")
        return info

    def remove_leftovers(self) -> None:
        """Removes what killed processes left half written: small files, and checkpoints of a run that has ended.

        Only the process that trains the run calls this, or any if the run has ended.
        """
        if gcs.is_remote(self.path):
            return
        leftovers = [*self.path.glob(".*.tmp"), *self.evaluations.glob(".*.tmp")]
        if self.ended:  # Orbax removes them itself where a run is resumed
            leftovers += self.checkpoints.glob("*.orbax-checkpoint-tmp*")
        for path in leftovers:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def evaluation(self, step: int, variant: str = "") -> epath.Path:
        """Returns the file with the meta-test of the parameters after `step` steps.

        `variant` names a meta-test with other settings than the run's.
        """
        return self.evaluations / f"step_{step:08d}{f'_{variant}' if variant else ''}.json"

    def latest_evaluation(self) -> dict[str, Any] | None:
        """Returns the run's own meta-test at the highest step, or None."""
        files = self._evaluation_files()
        return read_json(files[-1], schemas.EVALUATION) if files else None

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Returns the run's own meta-tests, in the order of their steps."""
        return [read_json(file, schemas.EVALUATION) for file in self._evaluation_files()]

    def _evaluation_files(self) -> list[epath.Path]:
        return sorted(self.evaluations.glob("step_????????.json")) if self.evaluations.is_dir() else []


def ended_by(names: Collection[str]) -> str | None:
    """Returns the marker with which a run ended, given the names in its folder, or None."""
    return next((marker for marker in (DONE, DIVERGED) if marker in names), None)


def is_run(names: Collection[str]) -> bool:
    """Returns whether a folder belongs to a run, even if much of it is missing, given the names in it."""
    return not {"config.gin", "run.json", "metrics.jsonl"}.isdisjoint(names)


def _check_scheme(path: str) -> None:
    """Raises UsageError if a path is neither local nor on gs://."""
    scheme, colon, rest = path.partition(":/")
    if colon and "/" not in scheme and (scheme != "gs" or not rest.startswith("/") or rest == "/"):
        raise UsageError(f"{path}: a folder is a local path, or gs://BUCKET/FOLDER")


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a small file so that a reader, or the next process, sees all of it or nothing."""
    write_together(path.parent, {path.name: text.encode()})


def write_together(folder: epath.Path, contents: Mapping[str, bytes]) -> None:
    """Writes files of these names: all of them, or none if there is no space for one of them."""
    if gcs.is_remote(folder):  # objects are atomic
        gcs.write({str(folder / name): data for name, data in contents.items()})
        return
    folder.mkdir(parents=True, exist_ok=True)
    # The names are new, and "x" never follows a symlink: a folder from elsewhere cannot lead data to another file.
    temporaries = {name: folder / f".{name}.{uuid.uuid4().hex[:8]}.tmp" for name in contents}
    try:
        for name, temporary in temporaries.items():
            with open(temporary, "xb") as file:
                file.write(contents[name])
        for name, temporary in temporaries.items():
            temporary.replace(folder / name)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


def read_text(path: epath.Path, remedy: str, data: bytes | None = None) -> str:
    """Returns the text of a file in a run folder; raises Damaged as `read_bytes`, and if it is no UTF-8.

    `data` are its contents if they are known.
    """
    try:
        return (read_bytes(path, remedy) if data is None else data).decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is damaged: byte {error.start} is no UTF-8; {remedy}") from error


def read_bytes(path: epath.Path, remedy: str) -> bytes:
    """Returns the contents of a file in a run folder.

    Args:
      path: the file.
      remedy: what to do if it is damaged, the end of a message.

    Raises:
      Damaged: it is missing, or no regular file.
    """
    try:
        # Others may not end: a pipe without a writer, a device.
        if not gcs.is_remote(path) and not stat.S_ISREG(os.stat(path).st_mode):
            raise Damaged(f"{path} is damaged: it is no regular file; {remedy}")
        return path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({first_line(error)})") from error


def read_json(path: epath.Path, schema: Schema, data: bytes | None = None) -> Any:
    """Reads a file that `write_json` wrote; raises Damaged if it is missing, damaged or has another form.

    `data` are its contents if they are known.
    """
    text = read_text(path, schema.remedy, data)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({first_line(error)}); {schema.remedy}") from error
    return schema.check(value, str(path))


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text; raises ValueError if it is none."""
    with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
        return msgspec.json.decode(text)  # faster than json, which also takes NaN, and says where the text is wrong
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at character {error.pos + 1}") from error
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_json(path: epath.Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> str:
    """Returns `value` as readable JSON, the text of a file."""
    return json.dumps(value, indent=1) + "\n"
