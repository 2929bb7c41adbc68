"""The run folder: the only interface between a run and everything that comes after it."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from gpicl_flax.errors import UsageError

DONE = "DONE"
DIVERGED = "DIVERGED"
PARAMETERS = "parameters.npz"  # the parameters of an exported learner, which has no checkpoints


class RunFolder:
    """Paths of one run's folder, local or gs://, and its small files.

    It contains config.gin (all bindings), operative_config.gin (with every default used), run.json (the info about the
    run), metrics.jsonl, timing.jsonl, eval/, checkpoints/, and at the end one of the markers DONE and DIVERGED.
    """

    def __init__(self, path: epath.PathLike):
        path = epath.Path(path)
        # Orbax needs absolute paths, and epath would treat gs:// as a relative one.
        self.path = path if "://" in str(path) else path.expanduser().absolute()
        self.config = self.path / "config.gin"
        self.operative_config = self.path / "operative_config.gin"
        self.run_info = self.path / "run.json"
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
        return next((marker for marker in (DONE, DIVERGED) if (self.path / marker).exists()), None)

    @property
    def is_exported(self) -> bool:
        """Whether it holds an exported learner rather than a run."""
        return (self.path / PARAMETERS).exists()

    def mark(self, marker: str, text: str = "") -> None:
        """Marks the run as ended with DONE or DIVERGED."""
        write_atomically(self.path / marker, text)

    def read_config(self) -> str:
        """Returns the text of config.gin; raises UsageError if the folder is no run."""
        if not self.config.exists():
            raise UsageError(f"{self} is not a run folder: it has no {self.config.name}")
        return self.config.read_text()

    def read_run_info(self) -> dict[str, Any]:
        """Returns the contents of run.json."""
        return read_json(self.run_info)

    def evaluation(self, step: int, variant: str = "") -> epath.Path:
        """Returns the file with the meta-test of the parameters after `step` steps.

        `variant` names a meta-test with other settings than the run's.
        """
        return self.evaluations / f"step_{step:08d}{f'_{variant}' if variant else ''}.json"

    def latest_evaluation(self) -> dict[str, Any] | None:
        """Returns the run's own meta-test at the highest step, or None."""
        files = self._evaluation_files()
        return read_json(files[-1]) if files else None

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Returns the run's own meta-tests, in the order of their steps."""
        return [read_json(file) for file in self._evaluation_files()]

    def _evaluation_files(self) -> list[epath.Path]:
        return sorted(self.evaluations.glob("step_????????.json")) if self.evaluations.exists() else []


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a small file so that a reader, or the next process, sees all of it or nothing."""
    write_together(path.parent, {path.name: text.encode()})


def write_together(folder: epath.Path, contents: Mapping[str, bytes]) -> None:
    """Writes files of these names: all of them, or none if there is no space for one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    temporaries = {name: folder / f".{name}.tmp" for name in contents}
    try:
        for name, temporary in temporaries.items():
            temporary.write_bytes(contents[name])
        for name, temporary in temporaries.items():
            temporary.replace(folder / name)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


def read_json(path: epath.Path) -> Any:
    """Reads a file that `write_json` wrote; raises UsageError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is missing or damaged ({error})") from error


def write_json(path: epath.Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> str:
    """Returns `value` as readable JSON, the text of a file."""
    return json.dumps(value, indent=1) + "\n"
