"""Does a learning rate that was tuned at one width fit another? The last loss against the rate, by width.

So does Figure 1 of Yang et al. (2022, arXiv 2203.03466) show it for muP.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import runs
from gpicl_flax.analysis.data.frames import column_names, group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_NAME, _TITLE = "width_transfer", "Does the best learning rate move with the width?"
_MOST, _FEWEST_RATES = 8, 3
PANEL = ["base_dataset", "model", "condition", "parametrization"]


class Optimum(NamedTuple):
    """The best rate at one width.

    Attributes:
      rate: the vertex of a parabola through the lowest loss and its neighbours, over the logarithm of the rate; or that
        of the lowest loss, where it has no two neighbours.
      loss: the lowest mean loss.
      at_edge: whether that is the first or last rate of the grid, so that the best may lie outside.
    """

    rate: float
    loss: float
    at_edge: bool


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each panel, width and learning rate: mean, low and high of the last average loss, and runs.

    A panel is a base dataset, a model, a parametrisation, and what else distinguishes runs. A rate at which any run
    diverged has no mean.
    """
    table = study.table.dropna(subset=["model", "width", "learning_rate"])
    table = table[table["ended"].notna()]
    table = table.assign(parametrization=_parametrizations(table), value=table["last_loss_ema"].astype(float))
    table["condition"] = conditions(table, ["base_dataset", "model", "parametrization", "width", "learning_rate"])
    lost = table[(table["ended"] == "DIVERGED") | ~np.isfinite(table["value"])]
    axes = [*PANEL, "width", "learning_rate"]
    found = intervals.table(table, axes, "value")
    diverged = found[axes].apply(tuple, axis=1).isin(lost[axes].apply(tuple, axis=1)) if len(found) else []
    found.loc[diverged, ["mean", "low", "high"]] = math.nan
    return found


def _parametrizations(table: pd.DataFrame) -> pd.Series:
    """Returns the parametrisation of each run, from the binding of its model."""
    found = pd.Series("standard", index=table.index, dtype=object)
    for name in column_names(table):
        if name.startswith("binding_") and name.endswith(".parametrization"):
            known = table[name].notna()
            found[known] = table.loc[known, name].str.strip("'\"")
    return found


def optimum(rates: np.ndarray, losses: np.ndarray) -> Optimum:
    """Returns the best of some rates, in ascending order, of which NaN losses do not count but at an edge."""
    best = int(np.nanargmin(losses))
    if best in (0, len(rates) - 1):
        return Optimum(float(rates[best]), float(losses[best]), at_edge=True)
    near = slice(best - 1, best + 2)
    rate = float(rates[best])
    if np.isfinite(losses[near]).all():
        curve, slope, _ = np.polyfit(np.log(rates[near] / rate), losses[near], 2)
        rate *= math.exp(-slope / (2 * curve)) if curve > 0 else 1.0
    return Optimum(rate, float(losses[best]), at_edge=False)


def moved(rows: pd.DataFrame) -> float:
    """Returns the steps of the grid by which the best rate of a panel moves from the smallest to the largest width."""
    by_width = dict(group_by(rows.sort_values("learning_rate"), "width"))
    first, last = (_optimum(by_width[width]).rate for width in (min(by_width), max(by_width)))
    rates = np.sort(rows["learning_rate"].unique())
    return math.log(last / first) / float(np.median(np.diff(np.log(rates))))


def _optimum(line: pd.DataFrame) -> Optimum:
    return optimum(line["learning_rate"].to_numpy(float), line["mean"].to_numpy(float))


def _panels(table: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Returns the panels with at least two widths of at least three rates; the standard parametrisation comes first."""
    found = []
    for key, rows in group_by(table, PANEL):
        several = [line for _, line in group_by(rows, "width") if line["mean"].notna().sum() >= _FEWEST_RATES]
        if len(several) > 1:
            found.append((key, pd.concat(several)))
    return sorted(found, key=lambda panel: (panel[0][:-1], panel[0][-1] != "standard"))


@registry.register_comparison(0.6, "", most=0)
def draw(study: Study) -> Chart:
    """Draws a panel for each parametrisation and task, a line for each width, and marks the best rate of each."""
    table = numbers(study)
    panels = _panels(table)
    needs = {f"runs alike but for two widths and {_FEWEST_RATES} constant learning rates": bool(panels)}
    lacks = chart.missing(needs)
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    panels, more = chart.first(panels, _MOST, "panels")
    figure, grid = chart.panels(len(panels), columns=2, size=(5.2, 3.6))
    colours = chart.shades(sorted(table["width"].unique()))
    sentences = []
    for axes, ((dataset, model, condition, parametrization), rows) in zip(grid, panels, strict=True):
        edge = False
        for width, line in group_by(rows.sort_values("learning_rate"), "width"):
            errors = (line["mean"] - line["low"]).fillna(0), (line["high"] - line["mean"]).fillna(0)
            style = {"color": colours[width], "marker": ".", "linewidth": 1.4, "capsize": 2}
            axes.errorbar(line["learning_rate"], line["mean"], errors, label=f"width {width:,.0f}", **style)
            best = _optimum(line)
            edge |= best.at_edge
            axes.plot(best.rate, best.loss, "*", color=colours[width], markersize=13, markeredgecolor="black", zorder=4)
        rates = rows["learning_rate"]
        chart.log_steps(axes, rates.min() / 1.3, rates.max() * 1.3)
        axes.set_xlabel("learning rate (log scale)")
        axes.set_ylabel(f"last training loss: {_unit(study, dataset)}")
        chart.title(axes, f"{parametrization}: {model}, {dataset}", condition)
        axes.grid(alpha=0.3)
        sentences.append(_sentence(f"{parametrization}, {model}, {dataset}", rows, edge))
    chart.legend(figure)
    caption = (
        f"The average training loss at the end, by learning rate; a star marks the best rate. {' '.join(sentences)} "
        f"Means over seeds, where there are several, with Student's 95% intervals.{more}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table)


def _sentence(name: str, rows: pd.DataFrame, edge: bool) -> str:
    """Returns whether the best rate of a panel moves by less than a step of the grid."""
    steps, widths = moved(rows), rows["width"]
    verdict = "less than one step" if abs(steps) < 1 else "not less than one step"
    note = "; some best rates lie at the edge of the grid, and may lie beyond it" if edge else ""
    return (
        f"{name}: from width {widths.min():,.0f} to {widths.max():,.0f} the best rate moves by {steps:+.1f} steps "
        f"of the grid, {verdict}{note}."
    )


def _unit(study: Study, dataset: str) -> str:
    return chart.loss_in_words(runs.criteria(study.table[study.table["base_dataset"] == dataset].iloc[0]))
