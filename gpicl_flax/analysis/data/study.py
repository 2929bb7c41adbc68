"""The study of which the figures of a report are drawn."""

import dataclasses
import functools
from collections.abc import Callable

import pandas as pd
from etils import epath

from gpicl_flax.analysis.data import groups, one_run, read_tables, runs, selections, study_tables
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.runs import Runs
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import DONE, RunFolder
from gpicl_flax.runtime.processes import fastest


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs of a folder.

    Attributes:
      table: one row for each run, `groups.grouped`.
      evaluations: those of all steps, `evaluations.table`.
      curves: those of the last evaluations, `curves.table`.
      losses: the training losses, `losses.thinned`.
      heads: the comparisons of attention heads, `heads.strongest`.
      class_accuracies: those in context and in weights, `class_accuracies.over_steps`.
      distances: those from references, `distances.table`.
      interventions: in the order in which figures show them.
      run: reads everything that is kept of one run, given its label in the index of `table`.
      single: whether this is the folder of one run, rather than that of a sweep. A sweep may also have just one run.
      trials: the runs by which settings were chosen (see `selections`), in the form of `table`; nothing else has them.
      after_drop: how many steps after their drop runs are compared; None: a quarter of the steps of the shortest
        intervention.
    """

    table: pd.DataFrame
    evaluations: pd.DataFrame
    curves: pd.DataFrame
    losses: pd.DataFrame
    heads: pd.DataFrame
    class_accuracies: pd.DataFrame
    distances: pd.DataFrame
    interventions: list[str]
    run: Callable[[int], OneRun]
    single: bool
    trials: pd.DataFrame
    after_drop: int | None = None

    def ended(self, marker: str = DONE) -> pd.DataFrame:
        """Returns the runs that ended with `marker` and whose run.json names a model."""
        return self.table[(self.table["ended"] == marker) & self.table["model"].notna()]

    def tested(self) -> pd.DataFrame:
        """Returns the runs that are done, and those under way that were already meta-tested.

        The column `progress` says at which of how many steps a run was tested; it is '' for those that are done.
        """
        under_way = self.table["ended"].isna() & self.table["evaluated_at"].notna() & self.table["model"].notna()
        table = pd.concat([self.ended(), self.table[under_way]]).sort_index()
        progress = [
            f"after {at:,.0f} of {steps:,.0f} steps" if going else ""
            for at, steps, going in zip(table["evaluated_at"], table["steps"], under_way[table.index], strict=True)
        ]
        return table.assign(progress=progress)

    def final(self, number: str = "last") -> pd.DataFrame:
        """Returns the last evaluation of every run that is done.

        It has one row for each curve that has the number, with `evaluations.NUMBERS` beside the run's own columns. Its
        base_dataset is the one trained on, its test_dataset the one tested on. A run that diverged or has not ended has
        no row, so that runs are compared at the end of their training.

        Args:
          number: one of `evaluations.NUMBERS`. By default, only curves of accuracies have it.
        """
        tested = self.evaluations.rename(columns={"base_dataset": "test_dataset"})
        rows = self.ended().merge(tested, on="run_id")
        return rows[(rows["step"] == rows["evaluated_at"]) & rows[number].notna()].reset_index(drop=True)

    def measured(self) -> pd.DataFrame:
        """Returns one run with telemetry for each panel and intervention, in the order of figures.

        It is the one with the lowest seed.
        """
        table = self.table[self.table["telemetry_rows"] > 0].dropna(subset=["panel", "intervention"])
        panels = [panel for panel, _ in groups.by_panel(table)] if len(table) else []
        one_each = table.sort_values("seed", kind="stable").drop_duplicates(["panel", "intervention"])
        order = {"panel": panels.index, "intervention": self.interventions.index}
        return one_each.sort_values(["panel", "intervention"], key=lambda names: names.map(order[str(names.name)]))

    def measured_drop(self) -> OneRun | None:
        """Returns the first run of `measured` that has left its plateau, or else the first; None: there is none."""
        found = self.measured()
        left = found[found["plateau_left"].fillna(False).astype(bool)]
        found = left if len(left) else found
        return self.run(found.index[0]) if len(found) else None

    def parts(self, column: str, most: int) -> list["Study"]:
        """Divides the study into studies with at most `most` values of a column, 'panel' or 'setting', each.

        Returns the study itself if it has no more.
        """
        panels = [values for _, rows in groups.by_panel(self.table) for values in rows[column].unique()]
        panels = list(dict.fromkeys(panels))
        if len(panels) <= most:
            return [self]
        chunks = [panels[start : start + most] for start in range(0, len(panels), most)]
        return [dataclasses.replace(self, table=self.table[self.table[column].isin(chunk)]) for chunk in chunks]


def load(workdir: epath.PathLike, processes: int | None = 1, preload: str = __name__) -> Study:
    """Reads the folder of a sweep, of one run, or of the tables of either.

    Args:
      workdir: the folder.
      processes: how many read; None: as many as are fastest.
      preload: see `runtime.processes.executor`.

    Raises:
      UsageError: the folder holds none of these, or the tables are damaged.
    """
    if study_tables.holds_tables(workdir):
        tables = read_tables.read(workdir)
        return _study(tables.runs, tables.each.__getitem__, tables.single)
    try:
        folders = runs.find(workdir)
    except UsageError as error:
        raise UsageError(f"{error}{study_tables.hint(workdir)}") from None
    single = folders[0].path == RunFolder(workdir).path
    return _study(
        runs.read_all(folders, processes or fastest(len(folders)), preload), functools.partial(_read, folders), single
    )


def _read(folders: list[RunFolder], label: int) -> OneRun:  # not a lambda, so that a study can be pickled
    return one_run.read(folders[label])


def _study(found: Runs, run: Callable[[int], OneRun], single: bool) -> Study:
    reported, trials = selections.divide(found.table)
    parts = found[1:]
    if len(reported) < len(found.table):
        parts = [part[part["run_id"].isin(reported["run_id"])].reset_index(drop=True) for part in parts]
    table = groups.grouped(reported)
    return Study(table, *parts, interventions=groups.in_order(table), run=run, single=single, trials=trials)
