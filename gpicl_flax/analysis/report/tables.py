"""The tables of a report: the runs, the insights, published values, accuracies, plateaus and phases."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import groups, published
from gpicl_flax.analysis.data import phases as phases_of
from gpicl_flax.analysis.data.groups import BASELINE, RULES, by_panel
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import plateau_lengths, table2_methods
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.report import insights as paper_insights
from gpicl_flax.analysis.report import page
from gpicl_flax.records import phase


@dataclasses.dataclass(frozen=True)
class Table:
    """A table under a heading.

    Attributes:
      title: the heading.
      numbers: its cells as they are shown.
      note: a paragraph that explains the table.
      wraps: whether the cells hold sentences.
    """

    title: str
    numbers: pd.DataFrame
    note: str
    wraps: bool = False

    @property
    def html(self) -> str:
        """The table as a section of a page."""
        return page.table_section(self.title, self.numbers, self.note, wraps=self.wraps)

    def _repr_html_(self) -> str:
        """Returns the HTML that a notebook shows."""
        return page.table_section(self.title, self.numbers, self.note, wraps=self.wraps, level=3)


def runs(study: Study) -> Table:
    """Returns the runs, with their sizes, how they ended, and their accuracies.

    These are the accuracies of the last prediction on tasks of the base dataset trained on.
    """
    rows, own = study.table, study.table["base_dataset"]
    shown = pd.DataFrame(
        {
            "intervention": rows["intervention"],
            "setting": rows["panel"],
            "tasks": [groups.number(count) if pd.notna(count) else "" for count in rows["num_tasks"]],
            "parameters": _counts(rows["parameters"]),
            "state (paper)": _counts(rows["state_size_paper"]),
            "seed": _counts(rows["seed"]),
            "ended": rows["ended"].fillna("not yet"),
            "phase": phases_of.phases(rows).fillna("unknown"),
            "plateau left at": _counts(rows["plateau_steps"].where(rows["plateau_left"].fillna(False).astype(bool))),
        }
    )
    if "transience_step" in rows:
        shown["in context lost at"] = _counts(rows["transience_step"])
    for tasks in ("seen", "unseen"):
        column = [row.get(f"{tasks}_last[{name}]", np.nan) for (_, row), name in zip(rows.iterrows(), own, strict=True)]
        shown[tasks] = [f"{value:.1%}" if pd.notna(value) else "" for value in column]
    note = (
        "Seen and unseen: accuracy of the last prediction on such tasks of the base dataset trained on. The plateau is "
        "told by the training loss."
    )
    return Table("Runs", shown, note)


def _counts(numbers: pd.Series) -> list[str]:
    return [f"{int(value):,}" if pd.notna(value) else "" for value in numbers]


def insights(study: Study) -> Table:
    """Returns the verdict of the runs on each insight of the paper (Appendix A.1)."""
    findings = [insight(study) for insight in paper_insights.INSIGHTS]
    table = pd.DataFrame(
        {
            "insight": [f"{found.number}. {found.claim}" for found in findings],
            "these runs": [found.verdict for found in findings],
            "because": [found.because for found in findings],
            "see": [found.figures for found in findings],
        }
    )
    return Table(
        "The insights of the paper",
        table,
        "What the runs that are done say about each insight. Brackets are 95% intervals.",
        wraps=True,
    )


def published_values(charts: Sequence[Chart]) -> Table:
    """Returns the published values beside those of the runs."""
    ours = {key: text for chart in charts for key, text in chart.ours.items()}
    return Table(
        "Published values",
        published.beside(ours),
        "Values of the paper as its text says them, and what the figures below say of these runs, whose settings "
        "may differ.",
        wraps=True,
    )


def accuracies(study: Study) -> Iterator[Table]:
    """Yields Table 2, if runs are done."""
    accuracies = table2_methods.in_words(table2_methods.numbers(study))
    if not accuracies.empty:
        yield Table(
            "Table 2: accuracy of the last prediction",
            accuracies,
            "On unseen tasks, with 95% intervals; in round brackets the published value, where runs were trained on "
            "mnist.",
        )


def plateaus(study: Study) -> Iterator[Table]:
    """Yields medians and speed-ups, for each rule by which runs have a length."""
    for rule in RULES:
        numbers = plateau_lengths.numbers(study, rule)
        if not numbers.empty:
            yield Table(
                f"Medians and speed-ups, by {rule.words}",
                _in_words(numbers),
                "Median length of the plateau in training steps, and how many times shorter it is than that of "
                f"'{BASELINE}', each with its 95% interval; '>' is the most steps that a run of the group was watched "
                "for. p: permutation test of the log-rank statistic against that baseline, not corrected for the "
                "number of comparisons; 0.1 is the least that three runs against three can have. One run has neither "
                "interval nor p, and fewer than five have no interval of a speed-up." + rule.caveat,
            )


def phases(study: Study) -> Iterator[Table]:
    """Yields the number of runs in each phase, if any run has ended in one."""
    ends = study.table.assign(phase=phases_of.phases(study.table).fillna("unknown"))
    ends = ends.groupby(["panel", "intervention"])["phase"].value_counts().unstack(fill_value=0)
    if not ends.empty:
        rows: list[Any] = [
            (panel, x) for panel, _ in by_panel(study.table) for x in study.interventions if (panel, x) in ends.index
        ]
        columns = [name for name in (*phase.PHASES, "unknown") if name in ends]
        numbers = (
            " (or, for numbers, of the squared error by chance)" if study.table["num_classes"].isna().any() else ""
        )
        yield Table(
            "Phases",
            ends.loc[rows, columns].reset_index().rename(columns={"panel": "setting"}).rename_axis(columns=None),
            "How many runs of each kind stand on their plateau by their training loss, or else generalize, gaining at "
            f"least {phase.GAIN_CUT:g} of accuracy{numbers} within a sequence of an unseen task, or else overfit. "
            f"{phases_of.CAVEAT}",
        )


def _left(row: pd.Series) -> str:
    """Returns how many runs of a row left their plateau, and how many were stopped early on it."""
    early = row.get("ended_early", 0)
    return f"{row['left']} of {row['runs']}" + (f", {early} stopped early" if early else "")


def _in_words(numbers: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": numbers["panel"],
            "intervention": numbers["intervention"],
            "left": [_left(row) for _, row in numbers.iterrows()],
            "median [95% interval]": numbers.apply(plateau_lengths.median_in_words, axis=1),
            "speed-up [95% interval]": numbers.apply(plateau_lengths.speed_up_in_words, axis=1),
            "p": [f"{p:.2g}" if pd.notna(p) else "" for p in numbers["p_value"]],
        }
    )
