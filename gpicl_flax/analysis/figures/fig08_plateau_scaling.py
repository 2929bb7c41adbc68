"""Fig 8bc, 18 and 19: the length of the plateau against batch size and number of tasks, by optimiser."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BY_TRAINING_LOSS, conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import DASHES, Chart
from gpicl_flax.analysis.stats import power_law, survival

_PAPER, _NAME, _TITLE = (
    "Figures 8bc, 18, 19",
    "plateau_scaling",
    "Length of the plateau by batch size and number of tasks",
)
_OPTIMISER = ["optimizer", "learning_rate", "eps"]
_LINE = ["condition", "optimiser", "num_tasks"]
_LAW = ["exponent", "exponent_low", "exponent_high", "coefficient", "scatter", "no_law"]
_MOST = 2
_THIN = 0.8
_SAID = 8  # power laws in a caption
_HEIGHTS = {"median": "training steps", "tasks_seen": "tasks seen"}


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition, optimiser (in words), num_tasks (inf: unbounded) and task_batch_size.

    Further columns: the fields of `survival.Median` (median for its steps, inf if fewer than half have left), and the
    same in sequences seen, which is steps x batch size: tasks_seen, tasks_low, tasks_high, tasks_budget. Then the power
    law of all batch sizes of that condition, optimiser and num_tasks, `power_law.PowerLaw`: exponent with exponent_low
    and exponent_high (of the length in steps; in tasks seen each is larger by one), coefficient, scatter, and no_law:
    why there is none, or ''.
    """
    runs = BY_TRAINING_LOSS.known(study.table.dropna(subset=["num_tasks", "task_batch_size"]))
    axes = [*_OPTIMISER, "num_tasks", "task_batch_size"]
    runs = runs.assign(condition=conditions(runs, axes), optimiser=_optimisers(runs))
    rows = []
    for key, line in group_by(runs, _LINE):
        law = _law(line)
        for batch_size, same in group_by(line, "task_batch_size"):
            found = vars(survival.median(BY_TRAINING_LOSS.lengths(same)))
            row: dict[str, Any] = dict(zip(_LINE, key, strict=True)) | {
                "task_batch_size": batch_size,
                "median": found["steps"],
            }
            row |= {name: found[name] for name in ("low", "high", "budget", "runs", "left")}
            for name, old in (("seen", "median"), ("low", "low"), ("high", "high"), ("budget", "budget")):
                row[f"tasks_{name}"] = row[old] * batch_size
            rows.append(row | law)
    columns = [*_LINE, "task_batch_size", "median", "low", "high", "budget", "runs", "left"]
    columns += ["tasks_seen", "tasks_low", "tasks_high", "tasks_budget", *_LAW]
    return pd.DataFrame(rows, columns=columns)


def _optimisers(runs: pd.DataFrame) -> pd.Series:
    """Returns the names of the optimisers, with their learning rate and eps where these vary."""
    names = words = runs["optimizer"].fillna("unknown optimiser")
    for column in ("learning_rate", "eps"):
        varies = runs.groupby(names)[column].transform("nunique") > 1
        words = words.where(~varies, words + runs[column].map(f", {column.replace('_', ' ')} {{:g}}".format))
    return words


def _law(runs: pd.DataFrame) -> dict[str, float | str]:
    law = power_law.fit(runs["task_batch_size"].to_numpy(float), BY_TRAINING_LOSS.lengths(runs))
    if isinstance(law, str):
        return {"no_law": law}
    exponents = law.exponent, law.low, law.high
    return dict(zip(_LAW, (*exponents, law.coefficient, law.scatter, ""), strict=True))


def laws(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the power laws in rows of `numbers`.

    There is one for each condition, optimiser and num_tasks with several batch sizes, with its number of runs and how
    many of them left.
    """
    several = table[table.groupby(_LINE)["task_batch_size"].transform("size") > 1]
    return several.groupby(_LINE, as_index=False).agg({"runs": "sum", "left": "sum"} | dict.fromkeys(_LAW, "first"))


def sentence(law: pd.Series) -> str:
    """Returns a row of `laws` in words."""
    start = f"K = {groups.number(law['num_tasks'])}"
    if law["no_law"]:
        return f"{start}: no fit, {law['no_law']}."
    text = f"{start}: the plateau lasts for {_power(law, 0)} steps, which is {_power(law, 1)} tasks"
    if law["exponent_low"] > -1:
        text += ": larger batches leave it after more tasks"
    elif law["exponent_high"] < -1:
        text += ": larger batches leave it after fewer tasks"
    return f"{text} ({law['left']:.0f} of {law['runs']:.0f} runs have left)."


def _power(law: pd.Series, more: int) -> str:
    value, low, high = (law[name] + more for name in ("exponent", "exponent_low", "exponent_high"))
    return f"B^{value:.2f} [{low:.2f}, {high:.2f}]"


@registry.register_paper_figure(8.5)
def draw(study: Study) -> Chart:
    """Draws two rows for each condition, in steps and in tasks seen.

    The two columns are against batch size and number of tasks.
    """
    # There are two columns only if a condition has several numbers of tasks. Otherwise the second would show single
    # points.
    table = numbers(study)
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
    if (table["no_law"] == "").any():
        marks.append(Line2D([], [], color="0.3", linewidth=_THIN, label="power law"))
    hollow = Line2D(
        [], [], color="0.3", linestyle="none", marker="^", markerfacecolor="white", label="longer than that"
    )
    chart.legend(figure, extra=[*marks, hollow])
    caption = (
        "Kaplan-Meier medians over runs that differ in their seeds, with 95% log-log intervals, told by the training "
        "loss. A hollow triangle stands at the budget of runs of which fewer than half left their plateau: it is "
        "longer than that. Tasks seen are sequences: steps x batch size. Thin lines against the batch size B: power "
        "laws, fitted to all runs by maximum likelihood, with those that did not leave as censored; brackets are 95% "
        "intervals of the exponents." + BY_TRAINING_LOSS.caveat + more
    )
    fits = laws(table)
    several = len(fits[_LINE[:2]].drop_duplicates()) > 1
    for _, law in fits.head(_SAID).iterrows():
        where = ", ".join(filter(None, (law["condition"], law["optimiser"], ""))) if several else ""
        caption += f" {where}{sentence(law)}"
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
        law = line.iloc[0]
        if across == "task_batch_size" and law["no_law"] == "" and len(line) > 1:
            batch_sizes = line[across].agg(["min", "max"])
            fitted = law["coefficient"] * batch_sizes ** (law["exponent"] + (height == "tasks_seen"))
            axes.plot(batch_sizes.map(places), fitted, color=style["color"], linewidth=_THIN)
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
    fits = laws(table)
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
        return _power(known.iloc[0], more)
    return f"{_power(known.iloc[0], more)} to {_power(known.iloc[-1], more)}, of {len(known)} power laws"


def _range(ratios: list[float]) -> str:
    if not ratios:
        return "not known: plateaus beyond the budget"
    low, high = (groups.number(round(x, 2)) for x in (min(ratios), max(ratios)))
    return f"times {low}" if low == high else f"times {low} to {high}"
