"""Fig 8a: the phase that runs end in, by batch size and number of tasks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.phases import CAVEAT
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, phase_diagram, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.records.phase import PHASES

_PAPER, _NAME, _TITLE = (
    "Figure 8a",
    "phases_by_batch_size",
    "Plateau, Overfit or Generalize, by batch size and number of tasks",
)
_CELL = ["task_batch_size", "num_tasks"]
_MOST = 4
_MISSING = {"facecolor": "white", "edgecolor": "0.75", "hatch": "///", "linewidth": 0}


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition, task_batch_size and num_tasks (inf: unbounded), of runs that are done.

    Further columns: how many runs are in each of `PHASES`.
    """
    runs = study.ended()
    runs = runs.assign(condition=conditions(runs, _CELL))[["run_id", "condition", "task_batch_size"]]
    rows = phase_diagram.numbers(study).merge(runs, on="run_id")
    counts = rows.groupby(["condition", *_CELL])["phase"].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=list(PHASES), fill_value=0).rename_axis(columns=None).reset_index()


@registry.register_paper_figure(8)
def draw(study: Study) -> Chart:
    """Draws a map for each condition. A cell shows the phase of most of its runs, in a tie the later phase."""
    table = numbers(study)
    kinds = [(key, rows) for key, rows in group_by(table, "condition") if (rows[_CELL].nunique() > 1).all()]
    lacks = chart.missing(
        {
            "runs that are done, alike but for at least two batch sizes and two numbers of tasks, that tell their "
            "phase": bool(kinds)
        }
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "maps")
    figure, grid = chart.panels(len(kinds), columns=2, size=(5.0, 4.4))
    for axes, (condition, cells) in zip(grid, kinds, strict=True):
        _draw_cells(axes, cells)
        axes.set(xlabel="task batch size B (log scale)", ylabel="number of tasks K (log scale)")
        axes.set_title(condition, fontsize="medium")
    looks = phase_diagram.LOOKS
    marks = [Line2D([], [], linestyle="none", label=phase, markersize=9, **looks[phase]) for phase in PHASES]
    chart.legend(
        figure, columns=2 * min(len(kinds), 2), extra=[*marks, Patch(label="no run that tells its phase", **_MISSING)]
    )
    caption = (
        "The phase of most runs of a cell, with the share of them where they do not agree. Plateau: the average of the "
        "training loss was never under the plateau's threshold, 2.2 for 10 classes; Generalize: the last prediction on "
        f"unseen tasks is 0.2 more accurate than the first; Overfit: neither. {CAVEAT}{more}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)


def _draw_cells(axes: Axes, cells: pd.DataFrame) -> None:
    across, up = (sorted(cells[name].unique()) for name in _CELL)
    counts = cells.set_index(_CELL)[list(PHASES)]
    for column, batch in enumerate(across):
        for row, num_tasks in enumerate(up):
            if (batch, num_tasks) not in counts.index:
                axes.add_patch(Rectangle((column, row), 1, 1, **_MISSING))
                continue
            own = counts.loc[(batch, num_tasks)]
            phase = max(PHASES, key=lambda name: (own[name], PHASES.index(name)))
            look = phase_diagram.LOOKS[phase]
            axes.add_patch(Rectangle((column, row), 1, 1, color=look["color"], alpha=0.25, linewidth=0))
            axes.plot(column + 0.5, row + 0.5, markersize=8, **look)
            if own[phase] < own.sum():
                axes.text(column + 0.5, row + 0.06, f"{own[phase]}/{own.sum()}", ha="center", fontsize="small")
    axes.set(xlim=(0, len(across)), ylim=(0, len(up)))
    log2_axis.name_cells(axes.xaxis, across, 10, powers=False)
    log2_axis.name_cells(axes.yaxis, up)
