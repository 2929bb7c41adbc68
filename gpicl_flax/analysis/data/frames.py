"""What pandas's annotations leave open, said at one place."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def group_by(
    table: pd.DataFrame, keys: str | Sequence[str] | pd.Series, *, sort: bool = True
) -> list[tuple[Any, pd.DataFrame]]:
    """Returns the groups of `DataFrame.groupby` with their keys, whose types are those of the columns."""
    by: Any = keys
    return list(table.groupby(by, sort=sort))
