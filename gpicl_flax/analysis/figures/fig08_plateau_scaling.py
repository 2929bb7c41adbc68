"""Fig 8bc, 18 and 19: the length of the plateau against batch size and number of tasks, by optimiser."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data import groups, plateau_laws
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BY_TRAINING_LOSS
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import DASHES, Chart

_PAPER, _NAME, _TITLE = (
    "Figures 8bc, 18, 19",
    "plateau_scaling",
    "Length of the plateau by batch size and number of tasks",
)
_MOST = 2
_THIN = 0.8
_SAID = 8  # power laws in a caption
_HEIGHTS = {"median": "training steps", "tasks_seen": "tasks seen"}


@registry.register_paper_figure(8.5)
def draw(study: Study) -> Chart:
    """Draws two rows for each condition, in steps and in tasks seen.

    The two columns are against batch size and number of tasks.
    """
    # There are two columns only if a condition has several numbers of tasks. Otherwise the second would show single
    # points.
    table = plateau_laws.numbers(study)
    kinds = [(key, rows) for key, rows in group_by(table, "condition") if rows["task_batch_size"].nunique() > 1]
    lacks = chart.missing({"runs alike but for at least two batch sizes, with a training log": bool(kinds)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "settings")
    columns = 2 if any(rows["num_tasks"].nunique() > 1 for _, rows in kinds) else 1
    figure, grid = chart.panels(2 * columns * len(kinds), columns=columns, size=(5.6, 3.6))
    dashes = {name: DASHES[place % len(DASHES)] for place, name in enumerate(table["optimiser"].unique())}
    for place, axes in enumerate(grid):
        condition, rows = kinds[place // (2 * columns)]
        height = list(_HEIGHTS)[place // columns % 2]
        across, colour = ("task_batch_size", "num_tasks")[:: 1 if place % columns == 0 else -1]
        _draw_lines(axes, rows, across, colour, height, dashes)
        axes.set_ylabel(f"length of the plateau\n({_HEIGHTS[height]}, log scale)")
        axes.set_title(condition, fontsize="medium")
    marks = [Line2D([], [], color="0.3", linestyle=dash, label=name) for name, dash in dashes.items()]
    marks = marks if len(marks) > 1 else []
    if (table[["no_law", "tasks_no_law"]] == "").any(axis=None):
        marks.append(Line2D([], [], color="0.3", linewidth=_THIN, label="power law"))
    hollow = Line2D(
        [], [], color="0.3", linestyle="none", marker="^", markerfacecolor="white", label="longer than that"
    )
    chart.legend(figure, extra=[*marks, hollow])
    caption = (
        "Kaplan-Meier medians over runs that differ in their seeds, with 95% log-log intervals, told by the training "
        "loss. A hollow triangle stands at the budget of runs of which fewer than half left their plateau: it is "
        "longer than that. Tasks seen are sequences: steps x batch size. Thin lines: power laws of the batch size "
        "B and of the bounded numbers of tasks K, fitted to all runs by maximum likelihood, with those that did not "
        "leave as censored; brackets are 95% intervals of the exponents." + BY_TRAINING_LOSS.caveat + more
    )
    for fits, in_words in (
        (plateau_laws.laws(table), plateau_laws.sentence),
        (plateau_laws.laws_by_tasks(table), plateau_laws.sentence_by_tasks),
    ):
        several = len(fits[["condition", "optimiser"]].drop_duplicates()) > 1
        for _, law in fits.head(_SAID).iterrows():
            where = ", ".join(filter(None, (law["condition"], law["optimiser"], ""))) if several else ""
            caption += f" {where}{in_words(law)}"
        if len(fits) > _SAID:
            caption += f" {len(fits) - _SAID} further power laws are in the numbers."
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, _ours(table))


def _draw_lines(axes: Axes, rows: pd.DataFrame, across: str, colour: str, height: str, dashes: dict) -> None:
    """Draws one line for each value of `colour` and optimiser. Medians beyond the budget are drawn there, hollow."""
    words, colours = {
        "num_tasks": (log2_axis.tasks, "viridis"),
        "task_batch_size": ("batch size {:,.0f}".format, "plasma"),
    }[colour]
    shades = chart.shades(sorted(rows[colour].unique()), colours)
    places = log2_axis.places_of(rows[across])
    budget, low, high = ("budget", "low", "high") if height == "median" else ("tasks_budget", "tasks_low", "tasks_high")
    for (value, optimiser), line in group_by(rows, [colour, "optimiser"]):
        at, known = line[across].map(places).to_numpy(), line["left"].gt(0) & line[height].map(math.isfinite)
        heights = line[height].where(known, line[budget]).to_numpy(float)
        style = {"color": shades[value], "linestyle": dashes[optimiser]}
        axes.plot(
            at,
            heights,
            linewidth=1.5,
            label=words(value),
            **style,
        )
        axes.plot(at[known], heights[known], "o", color=style["color"], markersize=5)
        axes.plot(
            at[~known], heights[~known], "^", color=style["color"], markerfacecolor="white", markersize=7, zorder=3
        )
        prefix = "" if across == "task_batch_size" else "tasks_"
        bounded = line[np.isfinite(line[across])]
        if len(bounded) > 1 and bounded[f"{prefix}no_law"].iloc[0] == "":
            exponent, coefficient = bounded[[f"{prefix}exponent", f"{prefix}coefficient"]].iloc[0]
            sizes = bounded[across].agg(["min", "max"])
            fitted = coefficient * sizes**exponent
            if height == "tasks_seen":
                fitted *= sizes if across == "task_batch_size" else value
            axes.plot(sizes.map(places), fitted, color=style["color"], linewidth=_THIN)
        ends = line[[low, high]].to_numpy(float)
        for x, (start, end), is_known in zip(at, ends, known, strict=True):
            if is_known and math.isfinite(start) and math.isfinite(end):
                axes.plot([x, x], [start, end], color=style["color"], linewidth=0.8)
    axes.set_yscale("log", base=2)
    log2_axis.name(axes.xaxis, places, powers=across == "num_tasks")
    axes.set_xlabel({"task_batch_size": "task batch size B", "num_tasks": "number of tasks K"}[across] + " (log scale)")
    axes.grid(alpha=0.3)


def _ours(table: pd.DataFrame) -> dict[str, str]:
    """Returns the power laws of the batch size, and the change of medians from the largest to the smallest eps."""
    fits = plateau_laws.laws(table)
    ours = {"plateau_by_batch_size": _powers(fits, 0), "tasks_seen_by_batch_size": _powers(fits, 1)}
    parts = table["optimiser"].str.extract(r"^(.*), eps (.*)$").dropna().rename(columns={0: "name", 1: "eps"})
    known = table.join(parts, how="inner").astype({"eps": float})
    ratios = []
    for _, line in group_by(known, ["condition", "name", "num_tasks", "task_batch_size"]):
        line = line.sort_values("eps")
        if len(line) > 1 and line["median"].iloc[[0, -1]].map(math.isfinite).all():
            ratios.append(line["median"].iloc[0] / line["median"].iloc[-1])
    return ours | ({"plateau_by_eps": _range(ratios)} if len(known) else {})


def _powers(fits: pd.DataFrame, more: int) -> str:
    known = fits[fits["no_law"] == ""].sort_values("exponent")
    if known.empty:
        return f"no power law: {fits['no_law'].iloc[0]}"
    if len(known) == 1:
        return plateau_laws.power(known.iloc[0], more)
    first, last = (plateau_laws.power(known.iloc[end], more) for end in (0, -1))
    return f"{first} to {last}, of {len(known)} power laws"


def _range(ratios: list[float]) -> str:
    if not ratios:
        return "not known: plateaus beyond the budget"
    low, high = (groups.number(round(x, 2)) for x in (min(ratios), max(ratios)))
    return f"times {low}" if low == high else f"times {low} to {high}"
