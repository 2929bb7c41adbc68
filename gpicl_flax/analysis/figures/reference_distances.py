"""How far runs are from the references of their tasks, against steps and against the number of tasks."""

import math

import pandas as pd
from matplotlib.axes import Axes

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.distances import DIAGNOSED, TESTED
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import COLOURS, DASHES, Chart
from gpicl_flax.analysis.stats import intervals

# Near this number of tasks, the Transformer of Raventos et al. 2023 (arXiv 2306.15063) goes over from dMMSE to ridge.
# Its setting is that of gin/regression_tasks.gin, but for its tokens, each of which holds an input or a target.
_PUBLISHED_CROSSOVER, _CROSSING = 2**14, {"dMMSE", "ridge"}
_MOST = 12
_WHAT = (
    "Distances are between the predictions of the model and those of a reference, on unseen tasks: their mean squared "
    "difference, or for classes the Kullback-Leibler divergence in nats."
)


def numbers(study: Study, measured: str) -> pd.DataFrame:
    """Returns a row for each condition, number of tasks, reference and step, of what is measured along with or after.

    Further columns: mean, low and high of the distance, runs. Conditions differ in more than the number of tasks.
    """
    table = study.table.dropna(subset=["model"])
    table = table.assign(condition=groups.conditions(table, ["num_tasks"], across_tasks=True))
    rows = study.distances[study.distances["measured"] == measured]
    rows = table[["run_id", "condition", "num_tasks"]].merge(rows, on="run_id")
    return intervals.table(rows, ["condition", "num_tasks", "reference", "step"], "distance")


@registry.register_comparison(7, "", most=0)
def draw_steps(study: Study) -> Chart:
    """Draws a panel for each condition and number of tasks, with a line for each reference."""
    name, title = "reference_distances_steps", "Distance from references, along training"
    table = numbers(study, DIAGNOSED)
    lacks = chart.missing({"runs whose diagnostics have distances from references": len(table) > 0})
    if lacks:
        return Chart(name, title, lacks)
    kinds, more = chart.first(list(group_by(table, ["condition", "num_tasks"], sort=False)), _MOST, "settings")
    styles = _styles(table)
    figure, grid = chart.panels(len(kinds), sharey=True)
    for axes, ((condition, num_tasks), rows) in zip(grid, kinds, strict=True):
        for reference, line in group_by(rows, "reference"):
            _draw_line(axes, line["step"], line, styles[reference], reference)
        chart.title(axes, _tasks(num_tasks), condition)
        axes.set(xlabel="training step", yscale="log")
        chart.count_ticks(axes)
        axes.grid(alpha=0.3)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("distance (log scale)")
    chart.legend(figure)
    return Chart(name, title, f"{_WHAT} {intervals.WORDS}{more}", figure, table)


@registry.register_comparison(7.5, "", most=0)
def draw_tasks(study: Study) -> Chart:
    """Draws a panel for each condition, with the distance from each reference against the number of tasks."""
    name, title = "reference_distances_tasks", "Distance from references, against the number of tasks"
    table = numbers(study, TESTED)
    several = table.groupby("condition")["num_tasks"].nunique() if len(table) else pd.Series(dtype=int)
    kinds = [(key, rows) for key, rows in group_by(table, "condition", sort=False) if several[key] > 1]
    lacks = chart.missing({"runs of several numbers of tasks, meta-tested beside references": bool(kinds)})
    if lacks:
        return Chart(name, title, lacks)
    kinds, more = chart.first(kinds, _MOST, "settings")
    styles, places = _styles(table), log2_axis.places_of(table["num_tasks"])
    figure, grid = chart.panels(len(kinds), sharey=True)
    crossing = _CROSSING <= set(table["reference"])
    for axes, (condition, rows) in zip(grid, kinds, strict=True):
        for reference, line in group_by(rows, "reference"):
            _draw_line(axes, line["num_tasks"].map(places), line, styles[reference] | {"marker": "o"}, reference)
        if crossing:
            axes.axvline(math.log2(_PUBLISHED_CROSSOVER), color="0.4", linestyle=":", label="published crossover")
        log2_axis.name(axes.xaxis, places)
        chart.title(axes, condition or "all runs", "")
        axes.set(xlabel="number of tasks", yscale="log")
        axes.grid(alpha=0.3)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("distance (log scale)")
    chart.legend(figure)
    published = (
        " Dotted: where the Transformer of Raventos et al. (2023) goes over from dMMSE to ridge, near 2^14 tasks, "
        "after 500,000 steps and with other tokens."
        if crossing
        else ""
    )
    caption = f"By the last meta-test. {_WHAT} {intervals.WORDS}{published}{more}"
    return Chart(name, title, caption, figure, table)


def _styles(table: pd.DataFrame) -> dict[str, dict]:
    names = sorted(set(table["reference"]))
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(names)
    }


def _draw_line(axes: Axes, x: pd.Series, line: pd.DataFrame, style: dict, label: str) -> None:
    axes.plot(x, line["mean"], linewidth=1.5, markersize=4, label=label, **style)
    # An end below zero has no place on a logarithmic axis.
    low = line["low"].clip(lower=line["mean"].min() / 10)
    axes.fill_between(x, low, line["high"], color=style["color"], alpha=0.15, linewidth=0)


def _tasks(num_tasks: float) -> str:
    return "unbounded tasks" if math.isinf(num_tasks) else log2_axis.tasks(num_tasks)
