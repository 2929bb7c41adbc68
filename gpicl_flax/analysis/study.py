"""What the figures of a report are drawn from."""

import dataclasses

import pandas as pd
from etils import epath

from gpicl_flax.analysis import evaluations, groups, one_run, runs
from gpicl_flax.analysis.one_run import OneRun


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs of a folder.

    Attributes:
      runs: as they were read.
      table: a row each, `groups.grouped`.
      evaluations: of all steps, `evaluations.table`.
      interventions: in the order in which figures show them.
    """

    runs: list[OneRun]
    table: pd.DataFrame
    evaluations: pd.DataFrame
    interventions: list[str]


def load(workdir: epath.PathLike) -> Study:
    """Reads the folder of a sweep or of one run; raises UsageError if there is no run."""
    found = [one_run.read(folder) for folder in runs.find(workdir)]
    table = groups.grouped(runs.table(found))
    return Study(found, table, evaluations.table(found), groups.in_order(table))
