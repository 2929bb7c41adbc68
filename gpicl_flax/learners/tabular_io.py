"""Reads files of examples for `gpicl predict`, and writes its table."""

import pathlib

import numpy as np
import pandas as pd

from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.tasks.datasets import files


def read_labelled(path: str, label: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns features, one column each, and labels [n].

    They come from a CSV with a column `label`, or from an .npz with inputs and labels.

    Raises:
      UsageError: there is no such file, or it cannot be read.
    """
    features, labels = _read(path, label)
    if labels is None:
        what = "array named labels" if _is_npz(path) else f"column named {label}; name that of the labels with --label"
        raise UsageError(f"{path}: no {what}")
    _check_numbers(path, features)
    missing = pd.isna(labels)
    if missing.any():
        raise UsageError(f"{path}: example {1 + missing.argmax()} has no label")
    if len(labels) != len(features):
        raise UsageError(f"{path}: {len(features):,} inputs, but {len(labels):,} labels")
    return features, labels


def read_queries(path: str, label: str, *, like: pd.DataFrame) -> pd.DataFrame:
    """Returns the features of a file as in `read_labelled`, with the columns of `like`, in its order, without labels.

    Raises:
      UsageError: there is no such file, or it cannot be read, or it has other columns.
    """
    features, _ = _read(path, label)
    if set(features.columns) != set(like.columns):
        different = sorted(map(str, set(features.columns) ^ set(like.columns)))
        raise UsageError(f"{path}: has not the features of the context; in one of them only: {', '.join(different)}")
    _check_numbers(path, features)
    return features[like.columns]


def _check_numbers(path: str, features: pd.DataFrame) -> None:
    for name, column in features.items():
        if len(column) and not pd.api.types.is_numeric_dtype(column):
            raise UsageError(f"{path}: column {name} holds other things than numbers")


def predictions(classifier, queries: pd.DataFrame) -> str:
    """Returns CSV: a line for each query, with the predicted class and the probability of each class."""
    probabilities = classifier.predict_proba(queries)
    table = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classifier.classes_])
    table.insert(0, "prediction", classifier.classes_[probabilities.argmax(axis=1)])
    return table.to_csv(index=False, float_format="%.6f")


def _is_npz(path: str) -> bool:
    return pathlib.Path(path).suffix == ".npz"


def _read(path: str, label: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    if not pathlib.Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    return _read_npz(path) if _is_npz(path) else _read_csv(path, label)


def _read_npz(path: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    arrays = files.read_npz(pathlib.Path(path))
    if "inputs" not in arrays or not arrays["inputs"].ndim:
        raise UsageError(f"{path}: no array named inputs, with a row for each example")
    inputs = arrays["inputs"]
    features = pd.DataFrame(inputs.reshape(len(inputs), -1) if len(inputs) else inputs.reshape(0, 0))
    return features.rename(columns=str), arrays.get("labels")


def _read_csv(path: str, label: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    try:
        table = pd.read_csv(path, dtype={label: str}, skipinitialspace=True)
    except Exception as error:  # pandas raises many kinds
        raise UsageError(f"{path}: not a readable CSV file ({one_line(error)})") from error
    labels = table.pop(label).to_numpy(object) if label in table else None
    return table, labels
