"""The accuracies in context and in weights over the steps (Chan et al. 2022, arXiv 2205.05055)."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data.class_accuracies import ACCURACIES
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE, by_panel, natural
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.records import transience

_NAME, _TITLE = "in_context_in_weights", "Learning in context and in weights"
_LOOKS: dict[str, tuple[str, Any]] = {
    "in_context_accuracy": ("in context", "-"),
    "in_weights_accuracy": ("in weights", (0, (4, 1.5))),
}


@registry.register_comparison(6, "panel", most=4)
def draw(study: Study) -> Chart:
    """Draws a panel for each setting, with the two accuracies of each intervention over the training step."""
    table = numbers(study)
    lacks = chart.missing({"runs with Diagnostics.class_accuracies = True": len(table) > 0})
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    panels = [panel for panel, _ in by_panel(study.table) if (table["panel"] == panel).any()]
    names = sorted((x for x in study.interventions if (table["intervention"] == x).any()), key=natural)
    styles = chart.line_styles(names, BASELINE)
    figure, grid = chart.panels(len(panels), columns=2, size=(6.2, 3.8), sharey=True)
    for axes, panel in zip(grid, panels, strict=True):
        shown = table[table["panel"] == panel]
        for intervention, rows in group_by(shown, "intervention"):
            for name in ACCURACIES:
                _draw_accuracy(axes, rows, name, styles[intervention]["color"])
        classes = shown["num_classes"].dropna()
        if len(classes):
            axes.axhline(1 / classes.iloc[0], color="0.4", linestyle=":", linewidth=1)
        axes.axhline(0.5, color="0.6", linestyle="-.", linewidth=1)
        axes.set(title=panel, xlabel="training step", ylim=(-0.03, 1.03))
        chart.count_ticks(axes)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("accuracy at the last position")
    handles = [Line2D([], [], color=styles[name]["color"], label=name) for name in names]
    handles += [Line2D([], [], color="0.2", linestyle=dash, label=words) for words, dash in _LOOKS.values()]
    handles += [
        Line2D([], [], color="0.6", linestyle="-.", label="1/2: two labels in the context"),
        Line2D([], [], color="0.4", linestyle=":", label="chance, 1/C"),
    ]
    if table["transience_step"].notna().any():
        handles.append(Line2D([], [], linestyle="", label="lost in context", **_mark("0.2")))
    chart.legend(figure, columns=4, extra=handles)
    return Chart(_NAME, _TITLE, _caption(), figure, table)


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each run and step, with ACCURACIES, and num_classes and transience_step of the run."""
    columns = ["run_id", "panel", "intervention", "num_classes", "transience_step"]
    rows = study.table.reindex(columns=columns).merge(study.class_accuracies, on="run_id")
    own = ["panel", "intervention", "run_id", "num_classes", "transience_step", "step", *ACCURACIES]
    return rows[own].astype({"transience_step": float})


def _draw_accuracy(axes: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    """Draws the mean of an accuracy over runs, a band from the lowest to the highest, and a thin line for each run."""
    _, dash = _LOOKS[name]
    by_step = rows.groupby("step")[name]
    mean = by_step.mean()
    axes.plot(mean.index, mean, color=colour, linestyle=dash, linewidth=1.8)
    each = group_by(rows, "run_id")
    if len(each) > 1:
        axes.fill_between(mean.index, by_step.min(), by_step.max(), color=colour, alpha=0.12, linewidth=0)
    for _, run in each:
        if len(each) > 1:
            axes.plot(run["step"], run[name], color=colour, linestyle=dash, linewidth=0.6, alpha=0.6)
        lost = run[run["step"] == run["transience_step"]]
        if name == ACCURACIES[0] and len(lost):
            axes.plot(lost["step"], lost[name], zorder=3, **_mark(colour))


def _mark(colour: str) -> dict[str, Any]:
    return {"marker": "v", "markerfacecolor": "white", "markeredgecolor": colour}


def _caption() -> str:
    return (
        "Accuracy of the last prediction among all classes, along training. In context (solid): unseen tasks without "
        "fixed labels, where half of the context is of the query's class and half of one other, so that a guess "
        "between the two labels is right half of the time. In weights (dashed): the query's class has a fixed label "
        "and is not in the context. Thick lines are means over seeds, thin ones the seeds, bands from the lowest to "
        "the highest. A triangle marks the step from which a run has lost its learning in context: its accuracy is "
        f"below its peak by at least {transience.SHARE:.0%} of what the peak is above 1/C, there and at every later "
        f"step. A peak of less than {transience.MIN_RISE:g} above 1/C does not count."
    )
