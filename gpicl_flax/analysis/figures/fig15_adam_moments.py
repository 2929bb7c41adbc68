"""The two moments of Adam over the steps of a run, and the drop of its loss (Fig 15 of the paper)."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, diagnostics, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart

_PAPER, _NAME, _TITLE = "Figure 15", "adam_moments", "Adam's two moments"
_MOMENTS = {
    "first_moment_norm": "L2 norm of the average gradient",
    "second_moment_norm": "L2 norm of the average squared gradient",
}


@registry.register_paper_figure(15)
def draw(study: Study) -> Chart:
    """Draws a run with telemetry, if possible one that has left its plateau."""
    run = study.measured_drop()
    return Chart(_NAME, _TITLE, chart.missing({chart.TELEMETRY: False}), paper=_PAPER) if run is None else draw_run(run)


@registry.register_run_figure(4)
def draw_run(run: OneRun) -> Chart:
    """Draws the norms of the first moment (left) and the second (right), with a line where the plateau was left."""
    name, title = f"{_NAME}_{run.run_id}", f"{_TITLE} in {run.run_id}"
    whole: Any = run.telemetry.get("", pd.DataFrame())
    lacks = chart.missing(
        {chart.TELEMETRY: len(run.telemetry) > 0, "an optimiser with Adam's two moments": set(_MOMENTS) <= set(whole)}
    )
    if lacks:
        return Chart(name, title, lacks, paper=_PAPER)
    table = whole[list(_MOMENTS)].rename_axis(columns=None).reset_index()
    drops = diagnostics.drops(run, diagnostics.numbers(run))
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    grid = figure.subplots(1, len(_MOMENTS))
    for axes, (moment, words) in zip(grid, _MOMENTS.items(), strict=True):
        axes.plot(table["step"], table[moment], color=COLOURS[0], linewidth=1.5)
        axes.set(xlabel="training step", ylabel=words)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
        axes.update_datalim([(table["step"].iloc[0], 0)])
        axes.autoscale_view()
    diagnostics.mark_drops(grid, drops)
    if drops:
        chart.legend(figure)
    caption = (
        "The exponential moving averages of the gradient (left) and of its square (right) that Adam keeps, of all "
        f"parameters together. {diagnostics.drops_in_words(drops)}"
    )
    return Chart(name, title, caption, figure, table, _PAPER)
