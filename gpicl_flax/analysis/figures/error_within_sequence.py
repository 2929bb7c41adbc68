"""The squared error along sequences, of runs whose targets are numbers: what Fig 3 is for classes."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import groups, runs
from gpicl_flax.analysis.data.curves import ERROR
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_NAME, _TITLE = "error_within_sequence", "Squared error against the examples seen"
_MOST = 9
_LINES = {"seen": "--", "unseen": "-"}
_REFERENCE, _MARKERS = "reference", "os^vDxP*"
_COLUMNS = ["panel", "intervention", "tasks", "position", "mean", "low", "high", "runs", "chance"]


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each panel, intervention, tasks and position, by the last meta-test of runs that are done.

    Further columns: mean, low and high of the squared error, runs, and chance, the error of the mean of all targets.
    Rows of references have their name as intervention and 'reference' as tasks; these are unseen ones, and the mean is
    that of the runs of the panel.
    """
    rows = study.ended().merge(study.curves.dropna(subset=[ERROR[0]]), on="run_id")
    parts = []
    for (panel, intervention, tasks), curves in group_by(rows, ["panel", "intervention", "tasks"], sort=False):
        mean, low, high = intervals.of_runs_or_sequences(*(np.stack(list(curves[name])) for name in ERROR))
        part = {"panel": panel, "intervention": intervention, "tasks": tasks, "position": curves.iloc[0]["positions"]}
        part |= {"mean": mean, "low": low, "high": high, "runs": len(curves)}
        parts.append(pd.DataFrame(part | {"chance": _chance(curves)}))
    for panel, curves in group_by(rows[rows["tasks"] == "unseen"], "panel", sort=False):
        if curves["references"].map(len).any():
            parts.append(_references(panel, curves).assign(chance=_chance(curves)))
    return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else pd.DataFrame(columns=_COLUMNS)


def _references(panel: str, curves: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the references of a panel."""
    found = [
        pd.DataFrame({"intervention": name, "position": positions, "error": errors})
        for references in curves["references"]
        for name, (positions, errors) in references.items()
    ]
    table = intervals.table(pd.concat(found, ignore_index=True), ["intervention", "position"], "error")
    return table.assign(panel=panel, tasks=_REFERENCE)


def _chance(curves: pd.DataFrame) -> float:
    """Returns the error of the mean of all targets, for runs of one panel."""
    criteria = runs.criteria(curves.iloc[0])
    return criteria.chance_score if criteria else np.nan


@registry.register_comparison(0, "", most=0)
def draw(study: Study) -> Chart:
    """Draws a panel for each setting and number of tasks, with a curve for each intervention."""
    table = numbers(study)
    lacks = chart.missing({"runs that are done, whose targets are numbers": len(table) > 0})
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    order = [panel for panel, _ in groups.by_panel(study.table)]
    kinds = sorted(group_by(table, "panel"), key=lambda kind: order.index(kind[0]))
    kinds, more = chart.first(kinds, _MOST, "settings")
    styles = chart.line_styles(study.interventions, BASELINE)
    references = sorted(set(table.loc[table["tasks"] == _REFERENCE, "intervention"]))
    markers = dict(zip(references, itertools.cycle(_MARKERS), strict=False))
    # Panels whose chances differ, as those of functions do, have scales of their own.
    same_scale = table["chance"].nunique() == 1
    figure, grid = chart.panels(len(kinds), sharey=same_scale)
    for axes, (panel, rows) in zip(grid, kinds, strict=True):
        shown = rows[rows["tasks"] != _REFERENCE]
        for (intervention, tasks), curve in group_by(shown, ["intervention", "tasks"]):
            style: dict[str, Any] = styles[intervention] | {
                "linestyle": _LINES[tasks],
                "label": f"{intervention}, {tasks} tasks",
            }
            axes.plot(curve["position"], curve["mean"], **style)
            ends = curve["low"], curve["high"]
            axes.fill_between(curve["position"], *ends, color=style["color"], alpha=0.2, linewidth=0)
        for name, curve in group_by(rows[rows["tasks"] == _REFERENCE], "intervention"):
            axes.plot(
                curve["position"], curve["mean"], color="0.3", linewidth=0.8, marker=markers[name], markersize=4,
                markevery=max(1, len(curve) // 8), label=name,
            )  # fmt: skip
        chance = rows["chance"].iloc[0]
        axes.axhline(chance, color="0.4", linestyle=":", label="chance")
        # Intervals of a few seeds can be far wider than the differences between curves.
        highest = (table if same_scale else rows)["mean"].max()
        axes.set_ylim(0, 1.1 * min(max(highest, chance), 1.3 * chance))
        axes.set_xlabel("examples seen in the sequence")
        chart.count_ticks(axes)
        axes.set_title(panel, fontsize="medium")
        axes.grid(alpha=0.3)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("squared error")
    chart.legend(figure, columns=2)
    caption = (
        "Squared error of the prediction at every position of new sequences, after the last step. Chance is the error "
        "of the mean of all targets. Means over runs that differ in their seeds, with Student's 95% intervals, or "
        f"those of their sequences together if they are wider. Thin lines are references on the same "
        f"unseen tasks.{more}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table)
