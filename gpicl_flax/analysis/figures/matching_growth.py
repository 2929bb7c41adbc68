"""The comparisons of heads while runs are on their plateau: does the comparison grow before the loss falls?"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, StrMethodFormatter

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE, BY_UNSEEN_TASKS, by_panel
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart

_RUNS = 3  # runs of each panel and intervention that are drawn
_LOWEST = 0.01  # the lowest matching score that is drawn; smaller ones are drawn on the axis
_NAME, _TITLE = "matching_growth", "What heads compare, before and after the plateau"
_ROWS = {
    "matching_score": "highest matching score\nof a head (log scale)",
    "same_class_ratio": "attention on the class,\nover uniform (log scale)",
}


@registry.register_comparison(5, "panel", most=3)
def draw(study: Study) -> Chart:
    """Draws a column for each setting.

    Above is the highest matching score; below, the attention on the class over uniform attention.
    """
    table = numbers(study)
    if table.empty:
        return Chart(_NAME, _TITLE, "No run has diagnostics of queries and keys.")
    panels = [panel for panel, _ in by_panel(study.table) if (table["panel"] == panel).any()]
    rows = [name for name in _ROWS if table[name].notna().any()]
    figure = Figure(figsize=(4.4 * len(panels) + 2.4, 2.9 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex="col", sharey="row")
    styles = chart.line_styles(study.interventions, BASELINE)
    for column, panel in zip(grid.T, panels, strict=True):
        for axes, name in zip(column, rows, strict=True):
            for (intervention, _), run in group_by(
                table[table["panel"] == panel], ["intervention", "run_id"], sort=False
            ):
                _draw_run(axes, run, name, styles[intervention])
            axes.grid(alpha=0.3)
        column[0].set_title(panel, fontsize="medium")
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(_ROWS[name])
        axes.set_yscale("log")
        if name == "matching_score":
            axes.set_ylim(_LOWEST, 1.1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in grid[-1]:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.supxlabel("training step", fontsize="medium")
    names = [x for x in study.interventions if (table["intervention"] == x).any()]
    handles = [Line2D([], [], linewidth=1.4, **styles[x]) for x in names]
    drop = Line2D([], [], linestyle="", marker="o", markerfacecolor="white", markeredgecolor="0.3")
    figure.legend([*handles, drop], [*names, "plateau left"], loc="outside right upper", frameon=False)
    return Chart(_NAME, _TITLE, _caption(), figure, table)


def numbers(study: Study) -> pd.DataFrame:
    """Returns the rows of `heads.strongest` for up to three runs of each panel and intervention.

    Further columns: panel, intervention, and left: the step at which the plateau was left, by the loss on unseen tasks;
    NaN if it was not.
    """
    runs = study.table.sort_values("seed", kind="stable").groupby(["panel", "intervention"]).head(_RUNS)
    runs = runs.sort_values("intervention", key=lambda names: names.map(study.interventions.index), kind="stable")
    left = runs[BY_UNSEEN_TASKS.left].fillna(False).astype(bool)
    runs = runs.assign(left=runs[BY_UNSEEN_TASKS.steps].where(left))[["run_id", "panel", "intervention", "left"]]
    rows = runs.merge(study.heads, on="run_id")
    return rows[["panel", "intervention", "run_id", "step", *_ROWS, "left"]].astype({"left": float})


def _draw_run(axes: Axes, run: pd.DataFrame, name: str, style: dict) -> None:
    values = run[name].clip(lower=_LOWEST) if name == "matching_score" else run[name]
    axes.plot(run["step"], values, linewidth=1.4, alpha=0.9, **style)
    left = run["left"].iloc[0]
    at = run["step"] == left
    if at.any():
        axes.plot(left, values[at].iloc[0], "o", markerfacecolor="white", markeredgecolor=style["color"], zorder=3)


def _caption() -> str:
    return (
        f"A line a run, up to {_RUNS} of each intervention; a circle where it left its plateau, by its "
        f"{BY_UNSEEN_TASKS.words}. Above: how well products of queries and keys follow products of inputs, 1 being "
        f"perfectly, of the head that does it best; less than {_LOWEST:g} is drawn there. Below: attention on tokens "
        "with the label of the present input, as a multiple of what uniform attention would give, of the head that is "
        "farthest from it; a head under 1 looks away from its class. What grows while the loss stands is progress that "
        "the loss does not show; exponential growth is a straight line."
    )
