"""The phases of runs against the number of tasks they were trained on."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data import runs
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE
from gpicl_flax.analysis.data.phases import CAVEAT, phases
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.records.phase import GAIN_CUT, GENERALIZE, OVERFIT, PHASES, PLATEAU

LOOKS = {
    PLATEAU: {"marker": "_", "color": "0.45", "markeredgewidth": 2},
    OVERFIT: {"marker": "x", "color": COLOURS[1], "markeredgewidth": 1.5},
    GENERALIZE: {"marker": "o", "color": COLOURS[2], "markeredgewidth": 0},
}


def numbers(study: Study, *, loss_cut: float | None = None, gain_cut: float = GAIN_CUT) -> pd.DataFrame:
    """Returns a row for each run whose phase is known.

    Columns: setting, intervention, run_id, num_tasks (inf: unbounded), gain (unseen last minus first accuracy, which
    may be missing for a run on its plateau), phase.
    """
    table = study.table[["setting", "intervention", "run_id"]].assign(
        num_tasks=study.table["num_tasks"].astype(float),
        gain=study.table.apply(runs.of_its_own_dataset, axis=1, number="unseen_gain").astype(float),
        phase=phases(study.table, loss_cut=loss_cut, gain_cut=gain_cut),
    )
    return table.dropna(subset=["setting", "intervention", "num_tasks", "phase"]).reset_index(drop=True)


_GAINED = "accuracy on unseen tasks,\nlast minus first position"


@registry.register_comparison(4, "setting", most=3)
def draw(study: Study, *, loss_cut: float | None = None, gain_cut: float = GAIN_CUT) -> Chart:
    """Draws a panel for each setting: above, the gain on unseen tasks against K; below, the phases of all runs.

    The phases have a row for each intervention.
    """
    # The places are those of all runs, so that a number of tasks has the same place in every panel.
    name, title = "phases", "Plateau, Overfit or Generalize against the number of tasks"
    table = numbers(study, loss_cut=loss_cut, gain_cut=gain_cut)
    if table["num_tasks"].nunique() < 2:
        why = (
            "all runs have the same number of tasks" if len(table) else "no run tells its number of tasks and its phase"
        )
        return Chart(name, title, f"Not drawn: {why}.", numbers=table)
    panels = group_by(table, "setting")
    interventions = [x for x in study.interventions if x in set(table["intervention"])]
    places = log2_axis.places_of(table["num_tasks"])
    heights = [3.0, 0.27 * len(interventions) + 0.3]
    width = max(3.4, 0.34 * len(places) + 1) * len(panels) + 3.4
    figure = Figure(figsize=(width, sum(heights) + 0.9), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, height_ratios=heights, sharex="col", sharey="row")
    styles = chart.line_styles(study.interventions, BASELINE)
    for (above, below), (panel, rows) in zip(grid.T, panels, strict=True):
        for intervention in interventions:
            _draw_gains(above, rows[rows["intervention"] == intervention], places, styles[intervention])
        above.axhline(gain_cut, color="0.4", linestyle=":")
        above.set_title(panel, fontsize="medium")
        above.grid(alpha=0.3)
        chart.name_rows(below, interventions)
        for place, intervention in enumerate(interventions):
            _draw_phases(below, place, rows[rows["intervention"] == intervention], places)
        log2_axis.name(below.xaxis, places)
        below.set_xlabel("number of tasks K (log scale)")
    numbers_alone = bool(study.table["num_classes"].isna().all())
    gained = "share of squared error that is\ngone at the last position" if numbers_alone else _GAINED
    grid[0, 0].set_ylabel(gained)
    lines = [Line2D([], [], **styles[x]) for x in interventions]
    figure.legend(lines, interventions, loc="outside right upper", frameon=False)
    marks = [Line2D([], [], linestyle="none", **LOOKS[phase]) for phase in PHASES]
    figure.legend(marks, PHASES, loc="outside right lower", frameon=False)
    cut = "the plateau's threshold, 2.2 for 10 classes" if loss_cut is None else f"{loss_cut:g}"
    cut = "the plateau's threshold" if numbers_alone else f"{cut} nats"
    what = "of the squared error by chance is gone" if numbers_alone else "accuracy runs gain"
    caption = (
        f"Above: how much {what} within a sequence of an unseen task, the mean over runs that differ in "
        f"their seeds. Below: the phase of every run. Plateau: the average of its training loss was never under {cut}"
        f"; Generalize: it gains {gain_cut:g} or more (dotted); Overfit: neither, of a bounded number of tasks. An "
        "unbounded number of tasks comes last. " + CAVEAT
    )
    left_out = len(study.table) - len(table)
    if left_out:
        caption += f" {left_out} of {len(study.table)} runs do not tell their phase and are left out."
    return Chart(name, title, caption, figure, table)


def _draw_gains(axes: Axes, rows: pd.DataFrame, places: dict[float, float], style: dict) -> None:
    means = rows.groupby("num_tasks")["gain"].mean().dropna().sort_index()
    at = [places[value] for value in means.index]
    bounded = np.isfinite(means.index)
    axes.plot(np.array(at)[bounded], means.to_numpy()[bounded], marker=".", linewidth=1.5, **style)
    axes.plot(np.array(at)[~bounded], means.to_numpy()[~bounded], marker="o", color=style["color"], markersize=5)


def _draw_phases(axes: Axes, place: int, rows: pd.DataFrame, places: dict[float, float]) -> None:
    for value, same in group_by(rows, "num_tasks"):
        heights = place + (np.linspace(-0.3, 0.3, len(same)) if len(same) > 1 else np.zeros(1))
        for height, phase in zip(heights, sorted(same["phase"], key=PHASES.index, reverse=True), strict=True):
            axes.plot(places[value], height, linestyle="none", markersize=4.5, **LOOKS[phase])
