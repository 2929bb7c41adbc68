"""Fig 2: how many tasks fit into models of several sizes, and when unseen tasks are learned as well."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 2", "memorization", "Accuracy by size of the model and number of tasks"
_KEYS = ["model", "condition", "tasks", "width", "num_tasks"]
_MOST = 6
_MISSING = {"facecolor": "0.93", "edgecolor": "0.6", "hatch": "///", "linewidth": 0}


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each model, condition, 'seen' or 'unseen' tasks, width and num_tasks (inf: unbounded).

    Further columns: the mean accuracy at the last position on the base dataset trained on, low, high, runs.
    """
    rows = study.final().dropna(subset=["width", "num_tasks"])
    rows = rows[rows["test_dataset"] == rows["base_dataset"]]
    condition = conditions(rows, ["model", "width", "tasks"], across_tasks=True)
    return intervals.table(rows.assign(condition=condition), _KEYS, "last")


@registry.register_paper_figure(2)
def draw(study: Study) -> Chart:
    """Draws a heat-map for each model and for seen and unseen tasks; cells without a run that is done are hatched."""
    table = numbers(study)
    kinds = [(key, cells) for key, cells in group_by(table, _KEYS[:3]) if cells["width"].nunique() > 1]
    lacks = chart.missing(
        {
            "runs that are done, of one model in at least two sizes": bool(kinds),
            "at least two numbers of tasks": table["num_tasks"].nunique() > 1,
        }
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "heat-maps")
    figure, grid = chart.panels(len(kinds), size=(3.9, 4.1))
    meshes = []
    for axes, ((model, condition, tasks), cells) in zip(grid, kinds, strict=True):
        meshes.append(_draw_cells(axes, cells))
        chart.title(axes, f"{model}: {tasks} tasks", condition)
        axes.set(xlabel="size of the model (width)", ylabel="number of tasks K")
    figure.colorbar(meshes[-1], ax=grid, label="accuracy at the last position", shrink=0.8)
    figure.legend([Patch(**_MISSING)], ["no run that is done"], loc="outside lower center", frameon=False)
    caption = (
        "Accuracy of the last prediction on tasks made from test examples of the base dataset trained on, the mean "
        "over runs that differ in their seeds. A model that sees one example can only memorise; one that learns from "
        "its context reaches unseen tasks as well." + more
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)


def _draw_cells(axes: Axes, cells: pd.DataFrame):
    """Draws cells side by side, widths to the right and numbers of tasks upwards."""
    means = cells.pivot(index="num_tasks", columns="width", values="mean").sort_index().sort_index(axis=1)
    for row, column in np.argwhere(means.isna().to_numpy()):
        axes.add_patch(Rectangle((column, row), 1, 1, **_MISSING))
    widths: list[Any] = means.columns.tolist()
    log2_axis.name_cells(axes.xaxis, widths, 10, powers=False)
    log2_axis.name_cells(axes.yaxis, means.index.tolist())
    return axes.pcolormesh(np.ma.masked_invalid(means.to_numpy()), vmin=0, vmax=1, cmap="viridis")
