"""What the figures of a report are drawn from."""

import dataclasses

import pandas as pd
from etils import epath

from gpicl_flax.analysis import groups, runs
from gpicl_flax.records.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs of a folder.

    Attributes:
      folders: theirs.
      table: a row each, `groups.grouped`.
      evaluations: of all steps, `evaluations.table`.
      interventions: in the order in which figures show them.
    """

    folders: list[RunFolder]
    table: pd.DataFrame
    evaluations: pd.DataFrame
    interventions: list[str]

    def parts(self, column: str, most: int) -> list["Study"]:
        """Studies of at most so many of the values of a column, 'panel' or 'setting'; itself, if it has no more."""
        panels = [values for _, rows in groups.by_panel(self.table) for values in rows[column].unique()]
        panels = list(dict.fromkeys(panels))
        if len(panels) <= most:
            return [self]
        chunks = [panels[start : start + most] for start in range(0, len(panels), most)]
        return [dataclasses.replace(self, table=self.table[self.table[column].isin(chunk)]) for chunk in chunks]


def load(workdir: epath.PathLike) -> Study:
    """Reads the folder of a sweep or of one run; raises UsageError if there is no run."""
    folders = runs.find(workdir)
    table, evaluations = runs.read_all(folders)
    table = groups.grouped(table)
    return Study(folders, table, evaluations, groups.in_order(table))
