"""Reads files of examples for `gpicl predict`, and writes its table."""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from gpicl_flax.errors import UsageError
from gpicl_flax.learners import csv_table
from gpicl_flax.learners.standardizer import MAX_STANDARDISED, Standardizer, first_outlier
from gpicl_flax.tasks.datasets import files, paths

_STDIN = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_NUM_NAMED = 5  # how many columns a message names


@dataclasses.dataclass(frozen=True)
class Table:
    """The examples in a file, at least one.

    Attributes:
      path: of the file.
      features: [n, features], float64 or, of an .npz file, any numbers; all finite.
      labels: [n], of a CSV as text; None: the file has none.
      lines: where in the file each example begins; None: it has no lines.
      doubt: a clause about a header that does not look like one, or ''.
    """

    path: str
    features: pd.DataFrame
    labels: np.ndarray | None
    lines: list[int] | None = None
    doubt: str = ""

    def place(self, row: int, column: int | None = None) -> str:
        """Returns the words for a place of the file."""
        words = f"{self.path}: row {row + 1}"
        words += "" if self.lines is None else f" (line {self.lines[row]})"
        return words if column is None else f"{words}, column {csv_table.shortened(self.features.columns[column])}"


def read_context(path: str, label: str) -> Table:
    """Returns the labelled examples of a CSV with a column `label`, or of an .npz with inputs and labels.

    Raises:
      UsageError: there is no such file, it cannot be read, or an example has no label or a feature that is no number.
    """
    table = _read(path, label, columns=None)
    missing = pd.isna(table.labels) | (np.asarray(table.labels, object) == "")
    if missing.any():
        raise UsageError(f"{table.place(int(missing.argmax()))}: has no label")
    return table


def read_queries(path: str, label: str, context: Table) -> Table:
    """Returns the examples of a file as in `read_context`, with its columns in their order; labels are not needed.

    Raises:
      UsageError: the file cannot be used, as in `read_context`, or has other columns than the context.
    """
    columns = context.features.columns
    table = _read(path, label, columns)
    return dataclasses.replace(table, features=table.features[columns])


def check_both_can_be_read(context: str, queries: str) -> None:
    """Raises UsageError if both paths are one pipe, which can be read once."""
    both = [path for path in (context, queries) if os.path.exists(path)]
    same = len(both) == 2 and os.path.samefile(*both) and paths.kind(context) != "file"
    if same or context in _STDIN and queries in _STDIN:
        raise UsageError(f"{context} and {queries} are the same stream, which can be read once; save one to a file")


def check_range(context: Table, queries: Table, *, shared_scale: bool) -> None:
    """Raises UsageError if a feature of a query is too far from those of the context for any model."""
    standardizer = Standardizer.fit(context.features.to_numpy(np.float64), shared=shared_scale)
    values = queries.features.to_numpy(np.float64)
    outlier = first_outlier(standardizer(values))
    if outlier is not None:
        raise UsageError(
            f"{queries.place(*outlier)}: {values[outlier]:g} is more than {MAX_STANDARDISED:g} standard deviations "
            "away from the context, which no model can read"
        )


def predictions(classifier, queries: pd.DataFrame) -> str:
    """Returns CSV: a line for each query, with the predicted class and the probability of each class."""
    probabilities = classifier.predict_proba(queries)
    table = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classifier.classes_])
    table.insert(0, "prediction", classifier.classes_[probabilities.argmax(axis=1)])
    return table.to_csv(index=False, float_format="%.6f")


def _is_npz(path: str) -> bool:
    return pathlib.Path(path).suffix.lower() == ".npz"


def _read(path: str, label: str, columns: Collection[str] | None) -> Table:
    """Reads a table that must have these columns of features or, if None, labels."""
    table = (_read_npz if _is_npz(path) else _read_csv)(path, label, columns)
    if not len(table.features):
        raise UsageError(f"{path}: holds no examples")
    return table


def _check_columns(table: Table, label: str, columns: Collection[str] | None) -> None:
    found = table.features.columns
    if columns is None:
        if table.labels is None and _is_npz(table.path):
            raise UsageError(f"{table.path}: no array named labels")
        if table.labels is None:
            others = "" if table.doubt else f", only {csv_table.shortened(', '.join(found))}"
            raise UsageError(
                f"{table.path}: no column named {label}{others}; name that of the labels with --label{table.doubt}"
            )
        if not len(found):
            raise UsageError(f"{table.path}: no features; every example needs at least one number beside its label")
    elif set(columns) != set(found):
        different = sorted(set(columns) ^ set(found))
        named = csv_table.shortened(", ".join(different[:_NUM_NAMED]))
        more = f" and {len(different) - _NUM_NAMED} more" if len(different) > _NUM_NAMED else ""
        raise UsageError(
            f"{table.path}: has not the features of the context; in one of them only: {named}{more}{table.doubt}"
        )


def _read_npz(path: str, label: str, columns: Collection[str] | None) -> Table:
    arrays = files.read_npz(pathlib.Path(path))
    if "inputs" not in arrays or not arrays["inputs"].ndim:
        raise UsageError(f"{path}: no array named inputs, with a row for each example")
    inputs, labels = arrays["inputs"], arrays.get("labels")
    if inputs.dtype.kind not in "biuf":
        raise UsageError(f"{path}: inputs must be numbers, not {inputs.dtype}")
    if labels is not None and labels.shape not in ((len(inputs),), (len(inputs), 1)):
        found = f"{len(labels):,} labels" if labels.ndim == 1 else f"labels of shape {list(labels.shape)}"
        raise UsageError(f"{path}: {len(inputs):,} inputs, but {found}")
    if labels is not None and (
        labels.dtype.kind not in "biufUS" or labels.dtype.kind == "f" and (labels % 1 > 0).any()
    ):
        raise UsageError(f"{path}: labels must be whole numbers or text, not {labels.dtype}")
    inputs = inputs.reshape(len(inputs), -1) if len(inputs) else inputs.reshape(0, 0)
    features = pd.DataFrame(inputs).rename(columns=str)
    table = Table(path, features, None if labels is None else labels.reshape(-1))
    _check_columns(table, label, columns)
    finite = np.isfinite(inputs)
    if not finite.all():
        row, column = map(int, np.unravel_index(finite.argmin(), finite.shape))
        raise UsageError(f"{table.place(row, column)}: {inputs[row, column]} is no finite number")
    return table


def _read_csv(path: str, label: str, columns: Collection[str] | None) -> Table:
    csv, label = csv_table.read(path), label.strip()
    columns_of_text = zip(*csv.rows, strict=True) if csv.rows else [()] * len(csv.names)
    fields = dict(zip(csv.names, columns_of_text, strict=True))
    labels = np.array(fields.pop(label), object) if label in fields else None
    numbers = {name: _numbers(column) for name, column in fields.items()}
    table = Table(path, pd.DataFrame(numbers, range(len(csv.rows)), dtype=float), labels, csv.lines, csv.doubt)
    _check_columns(table, label, columns)
    for column, (name, values) in enumerate(numbers.items()):
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            field = fields[name][row]
            found = f"{csv_table.shown(field)} is no finite number" if field else "has no value"
            advice = "; write numbers with a point and without commas" if "," in field else ""
            raise UsageError(f"{table.place(row, column)}: {found}{advice or csv.doubt}")
    return table


def _numbers(fields: Sequence[str]) -> np.ndarray:
    """Returns the numbers in fields of text, NaN for other text, and 1 and 0 if all are true or false."""
    try:
        numbers = np.array([*map(float, fields)])
    except ValueError:
        if {field.lower() for field in fields} <= {"true", "false"}:
            return np.array([field.lower() == "true" for field in fields], float)
        numbers = np.array([float(field) if csv_table.is_number(field) else np.nan for field in fields])
    return np.where(["_" in field for field in fields], np.nan, numbers)  # Python reads 1_0 as 10
