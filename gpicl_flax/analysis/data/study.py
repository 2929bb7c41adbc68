"""What the figures of a report are drawn from."""

import dataclasses

import pandas as pd
from etils import epath

from gpicl_flax.analysis.data import groups, one_run, runs
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.records.run_folder import DONE, RunFolder


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs of a folder.

    Attributes:
      folders: theirs.
      table: a row each, `groups.grouped`.
      evaluations: of all steps, `evaluations.table`.
      curves: of the last evaluations, `curves.table`.
      losses: of training, `losses.thinned`.
      heads: of attention, `heads.strongest`.
      interventions: in the order in which figures show them.
      after_drop: how many steps after their drop runs are compared; None: a quarter of the steps of the shortest
        intervention.
    """

    folders: list[RunFolder]
    table: pd.DataFrame
    evaluations: pd.DataFrame
    curves: pd.DataFrame
    losses: pd.DataFrame
    heads: pd.DataFrame
    interventions: list[str]
    after_drop: int | None = None

    def ended(self, marker: str = DONE) -> pd.DataFrame:
        """The runs that ended so, of those that say what they are."""
        return self.table[(self.table["ended"] == marker) & self.table["model"].notna()]

    def tested(self) -> pd.DataFrame:
        """The runs that are done, and those that have not ended but were meta-tested on the way: their `progress` says at what step
        of how many; it is '' for those that are done."""
        under_way = self.table["ended"].isna() & self.table["evaluated_at"].notna() & self.table["model"].notna()
        table = pd.concat([self.ended(), self.table[under_way]]).sort_index()
        progress = [
            f"after {at:,.0f} of {steps:,.0f} steps" if going else ""
            for at, steps, going in zip(table["evaluated_at"], table["steps"], under_way[table.index], strict=True)
        ]
        return table.assign(progress=progress)

    def final(self) -> pd.DataFrame:
        """The last evaluation of every run that is done: a row a curve, `evaluations.NUMBERS` beside the run's own columns.

        Its base_dataset is the one trained on, its test_dataset the one tested on. A run that diverged or has not ended has no
        row, so that runs are compared at the end of their training.
        """
        tested = self.evaluations.rename(columns={"base_dataset": "test_dataset"})
        rows = self.ended().merge(tested, on="run_id")
        return rows[rows["step"] == rows["evaluated_at"]].reset_index(drop=True)

    def measured(self) -> pd.DataFrame:
        """Of the runs that have telemetry, one of each panel and intervention, that of the lowest seed, as figures order them."""
        table = self.table[self.table["telemetry_rows"] > 0].dropna(subset=["panel", "intervention"])
        panels = [panel for panel, _ in groups.by_panel(table)] if len(table) else []
        one_each = table.sort_values("seed", kind="stable").drop_duplicates(["panel", "intervention"])
        order = {"panel": panels.index, "intervention": self.interventions.index}
        return one_each.sort_values(["panel", "intervention"], key=lambda names: names.map(order[names.name]))

    def measured_drop(self) -> OneRun | None:
        """The first run of `measured` that has left its plateau, or else the first; None: there is none."""
        found = self.measured()
        left = found[found["plateau_left"].fillna(False).astype(bool)]
        found = left if len(left) else found
        return one_run.read(self.folders[found.index[0]]) if len(found) else None

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
    read = runs.read_all(folders)
    table = groups.grouped(read.table)
    return Study(folders, table, *read[1:], groups.in_order(table))
