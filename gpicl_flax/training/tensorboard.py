"""Writes the rows of metrics.jsonl for TensorBoard as well, through clu."""

import importlib.util
from collections.abc import Iterator
from typing import Any

from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder


def check_installed() -> None:
    """Raises UsageError without TensorFlow and TensorBoard, which clu needs to write summaries."""
    missing = [name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Run.tensorboard = True needs {' and '.join(missing)}; install gpicl_flax with the extra `tensorboard`"
        )


class TensorBoard:
    """A sink for the rows of metrics.jsonl, which writes their values to <run folder>/tensorboard."""

    def __init__(self, folder: RunFolder):
        from clu import metric_writers  # imports TensorFlow, which takes seconds

        self._writer = metric_writers.SummaryWriter(str(folder.path / "tensorboard"))

    def __call__(self, row: dict[str, Any]) -> None:
        self._writer.write_scalars(row["step"], dict(scalars(row)))

    def close(self) -> None:
        """Writes the pending values."""
        self._writer.close()


def scalars(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a row except its step, with those in nested dicts and lists under a path."""

    def walk(value, path):
        if isinstance(value, dict | list):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(part, [*path, str(key)])
        elif value is not None and not isinstance(value, str):  # None was not finite, and text is no scalar
            yield "/".join(path), float(value)

    return walk({name: value for name, value in row.items() if name != "step"}, [])
