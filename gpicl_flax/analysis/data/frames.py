"""Gives types to results of pandas whose annotations leave them open."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def group_by(
    table: pd.DataFrame, keys: str | Sequence[str] | pd.Series, *, sort: bool = True
) -> list[tuple[Any, pd.DataFrame]]:
    """Returns the groups of `DataFrame.groupby` with their keys, whose types are those of the columns."""
    by: Any = keys
    return list(table.groupby(by, sort=sort))


def column_names(table: pd.DataFrame) -> list[str]:
    """Returns the names of the columns of a table that names them by text."""
    names: list[Any] = list(table.columns)
    return names


def row_with_highest(table: pd.DataFrame, column: str) -> pd.Series:
    """Returns the first row with the highest number in a column."""
    label: Any = table[column].idxmax()
    return table.loc[label]
