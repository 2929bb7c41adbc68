"""Fig 8bc, 18 and 19: the length of the plateau against batch size and number of tasks, by optimiser."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpicl_flax.analysis import chart, groups, log2_axis, survival
from gpicl_flax.analysis.chart import DASHES, Chart
from gpicl_flax.analysis.groups import BY_TRAINING_LOSS, conditions
from gpicl_flax.analysis.study import Study

_PAPER, _NAME, _TITLE = (
    "Figures 8bc, 18, 19",
    "plateau_scaling",
    "Length of the plateau by batch size and number of tasks",
)
_AXES = ["optimizer", "eps", "num_tasks", "task_batch_size"]
_MOST = 2
_HEIGHTS = {"median": "training steps", "tasks_seen": "tasks seen"}


def numbers(study: Study) -> pd.DataFrame:
    """A row for each condition, optimiser (in words), num_tasks (inf: unbounded) and task_batch_size.

    Further columns: the fields of `survival.Median` (median for its steps, inf where fewer than half have left), and the same
    in sequences seen, which is steps x batch size: tasks_seen, tasks_low, tasks_high, tasks_budget.
    """
    runs = BY_TRAINING_LOSS.known(study.table.dropna(subset=["num_tasks", "task_batch_size"]))
    runs = runs.assign(condition=conditions(runs, _AXES), optimiser=_optimisers(runs))
    rows = []
    for key, same in runs.groupby(["condition", "optimiser", "num_tasks", "task_batch_size"]):
        found = vars(survival.median(BY_TRAINING_LOSS.lengths(same)))
        row = dict(zip(("condition", "optimiser", "num_tasks", "task_batch_size"), key, strict=True))
        row |= {"median": found.pop("steps")} | found
        row |= {
            f"tasks_{name}": row[old] * key[-1]
            for name, old in (("seen", "median"), ("low", "low"), ("high", "high"), ("budget", "budget"))
        }
        rows.append(row)
    columns = [
        "condition",
        "optimiser",
        "num_tasks",
        "task_batch_size",
        "median",
        "low",
        "high",
        "budget",
        "runs",
        "left",
    ]
    return pd.DataFrame(rows, columns=[*columns, "tasks_seen", "tasks_low", "tasks_high", "tasks_budget"])


def _optimisers(runs: pd.DataFrame) -> pd.Series:
    """The names of the optimisers, with their eps where it varies."""
    names = runs["optimizer"].fillna("unknown optimiser")
    varies = runs.groupby(names)["eps"].transform("nunique") > 1
    return names.where(~varies, names + runs["eps"].map(", eps {:g}".format))


def draw(study: Study) -> Chart:
    """For each condition two rows, in steps and in tasks seen, and two columns, against batch size and number of tasks."""
    table = numbers(study)
    kinds = [(key, rows) for key, rows in table.groupby("condition") if rows["task_batch_size"].nunique() > 1]
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
    hollow = Line2D(
        [], [], color="0.3", linestyle="none", marker="^", markerfacecolor="white", label="longer than that"
    )
    chart.legend(figure, extra=[*marks, hollow])
    caption = (
        "Kaplan-Meier medians over runs that differ in their seeds, with 95% log-log intervals, told by the training loss. A "
        "hollow triangle stands at the budget of runs of which fewer than half left their plateau: it is longer than that. "
        "Tasks seen are sequences: steps x batch size." + BY_TRAINING_LOSS.caveat + more
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, _ours(pd.concat([rows for _, rows in kinds])))


def _draw_lines(axes: Axes, rows: pd.DataFrame, across: str, colour: str, height: str, dashes: dict) -> None:
    """One line for each value of `colour` and optimiser; medians beyond the budget lie at it, hollow."""
    words, colours = {"num_tasks": ("{} tasks", "viridis"), "task_batch_size": ("batch size {:,.0f}", "plasma")}[colour]
    shades = chart.shades(sorted(rows[colour].unique()), colours)
    places = log2_axis.places_of(rows[across])
    budget, low, high = ("budget", "low", "high") if height == "median" else ("tasks_budget", "tasks_low", "tasks_high")
    for (value, optimiser), line in rows.groupby([colour, "optimiser"]):
        at, known = line[across].map(places).to_numpy(), line["left"].gt(0) & line[height].map(math.isfinite)
        heights = line[height].where(known, line[budget]).to_numpy(float)
        style = {"color": shades[value], "linestyle": dashes[optimiser]}
        axes.plot(
            at,
            heights,
            linewidth=1.5,
            label=words.format(value if colour == "task_batch_size" else log2_axis.text(value)),
            **style,
        )
        axes.plot(at[known], heights[known], "o", color=style["color"], markersize=5)
        axes.plot(
            at[~known], heights[~known], "^", color=style["color"], markerfacecolor="white", markersize=7, zorder=3
        )
        ends = line[[low, high]].to_numpy(float)
        for x, (start, end), is_known in zip(at, ends, known, strict=True):
            if is_known and math.isfinite(start) and math.isfinite(end):
                axes.plot([x, x], [start, end], color=style["color"], linewidth=0.8)
    axes.set_yscale("log", base=2)
    log2_axis.name(axes.xaxis, places, powers=across == "num_tasks")
    axes.set_xlabel({"task_batch_size": "task batch size B", "num_tasks": "number of tasks K"}[across] + " (log scale)")
    axes.grid(alpha=0.3)


def _ours(rows: pd.DataFrame) -> dict[str, str]:
    """How medians change from the smallest to the largest batch, and from the largest to the smallest eps of Adam."""
    steps, seen = [], []
    for _, line in rows.groupby(["condition", "optimiser", "num_tasks"]):
        line = line.sort_values("task_batch_size").iloc[[0, -1]]
        if line["task_batch_size"].nunique() > 1 and line["median"].map(math.isfinite).all():
            steps.append(line["median"].iloc[1] / line["median"].iloc[0])
            seen.append(line["tasks_seen"].iloc[1] / line["tasks_seen"].iloc[0])
    ours = {"plateau_by_batch_size": _range(steps), "tasks_seen_by_batch_size": _range(seen)}
    parts = rows["optimiser"].str.extract(r"^(.*), eps (.*)$").dropna().rename(columns={0: "name", 1: "eps"})
    ratios = []
    known = rows.join(parts, how="inner")
    known["eps"] = known["eps"].astype(float)
    for _, line in known.groupby(["condition", "name", "num_tasks", "task_batch_size"]):
        line = line.sort_values("eps")
        if len(line) > 1 and line["median"].iloc[[0, -1]].map(math.isfinite).all():
            ratios.append(line["median"].iloc[0] / line["median"].iloc[-1])
    return ours | ({"plateau_by_eps": _range(ratios)} if len(known) else {})


def _range(ratios: list[float]) -> str:
    if not ratios:
        return "not known: plateaus beyond the budget"
    low, high = (groups.number(round(x, 2)) for x in (min(ratios), max(ratios)))
    return f"times {low}" if low == high else f"times {low} to {high}"
