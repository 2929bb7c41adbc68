"""Accuracy at the best setting of each size, against state, parameters, compute and examples; and how it was chosen."""

import json
import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis.data import frontiers, selections
from gpicl_flax.analysis.data.configurations import PARAMETERS, STATE_PAPER
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.frontiers import COMPUTE, EXAMPLES
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart

_NAME, _TITLE = "frontiers", "Accuracy against state, parameters, compute and examples, tuned"
_AXES = {
    STATE_PAPER: "state size (as the paper counts)",
    PARAMETERS: "parameter count",
    COMPUTE: "flops of training",
    EXAMPLES: "examples of training",
}
_MARKERS = "osD^vPX*<>"
_MOST = 3  # settings that are drawn


@registry.register_paper_figure(6.7)
def draw(study: Study) -> Chart:
    """Draws the frontiers of each setting in a row, and below them the values that work, for each configuration."""
    table = frontiers.table(study)
    lacks = chart.missing(
        {"runs that are done, of a sweep that chose settings (sweep.select), with a meta-test": len(table) > 0}
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    settings, more = chart.first(group_by(table, ["base_dataset", "condition"]), _MOST, "settings")
    axes_names = [axis for axis in _AXES if table[axis].nunique() > 1] or [STATE_PAPER]
    architectures = sorted(table["architecture"].unique())
    styles = chart.line_styles(architectures, "Transformer")
    styles: dict[str, dict[str, Any]] = {
        name: style | {"marker": _MARKERS[i % len(_MARKERS)]} for i, (name, style) in enumerate(styles.items())
    }
    columns = max(len(axes_names), 2)
    figure = Figure(figsize=(3.9 * columns + 2.2, 6.6 * len(settings)), layout="constrained")
    grid = figure.subplots(2 * len(settings), columns, squeeze=False)
    for row, ((base_dataset, condition), rows) in enumerate(settings):
        top, bottom = grid[2 * row], grid[2 * row + 1]
        for axes, axis in zip(top, axes_names, strict=False):
            _draw_frontier(axes, rows, axis, styles)
        top[0].set_ylabel("accuracy of the last prediction,\nunseen tasks")
        chart.title(top[0], base_dataset, condition)
        _draw_windows(bottom[0], rows, styles)
        _draw_plateaus(bottom[1], rows, styles)
        for empty in (*top[len(axes_names) :], *bottom[2:]):
            empty.set_axis_off()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return Chart(_NAME, _TITLE, _caption(study, table, axes_names) + more, figure, table)


def _draw_frontier(axes: Axes, rows: pd.DataFrame, axis: str, styles: dict[str, dict[str, Any]]) -> None:
    axes.axhline(rows["chance"].iloc[0], color="0.5", linestyle=":", label="chance")
    for name, own in group_by(rows, "architecture"):
        own = own.dropna(subset=[axis]).sort_values(axis)
        best, style = own[own[f"best_{axis}"]], styles[name]
        points: dict[str, Any] = {**style, "linestyle": "none"}
        axes.vlines(own[axis], own["accuracy_low"], own["accuracy_high"], color=style["color"], linewidth=1.2)
        others = own[~own[f"best_{axis}"]]
        axes.plot(others[axis], others["accuracy"], markersize=4, alpha=0.35, **points)
        axes.plot(best[axis], best["accuracy"], linewidth=1.3, markersize=5, label=name, **style)
        untuned = own[own["edge"].fillna("") != ""]
        axes.plot(untuned[axis], untuned["accuracy"], markersize=5, markerfacecolor="white", **points)
    axes.set_xscale("log", base=10 if axis in (COMPUTE, EXAMPLES) else 2)
    axes.set(ylim=(0, 1), xlabel=f"{_AXES[axis]}, log scale")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)


def _draw_windows(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """Draws the range of values that work against the state, the chosen one as a marker, hollow at an edge."""
    known = rows.dropna(subset=["value"])
    if known.empty:
        axes.text(0.5, 0.5, "what was chosen are no numbers;\nthe table has it", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    shifts = {name: 1 + 0.06 * (i - (len(styles) - 1) / 2) for i, name in enumerate(sorted(styles))}
    for name, own in group_by(known, "architecture"):
        place = own[STATE_PAPER] * shifts[name]
        style: dict[str, Any] = {**styles[name], "linestyle": "none"}
        axes.vlines(place, own["window_low"], own["window_high"], color=style["color"], linewidth=2.5, alpha=0.5)
        inside = own["edge"] == ""
        axes.plot(place[inside], own["value"][inside], markersize=5, **style)
        axes.plot(place[~inside], own["value"][~inside], markersize=5, markerfacecolor="white", **style)
    axes.set_xscale("log", base=2)
    if (known["window_low"] > 0).all() and known["window_high"].max() > 3 * known["window_low"].min():
        axes.set_yscale("log")
    axes.set(xlabel=f"{_AXES[STATE_PAPER]}, log scale", ylabel=", ".join(_names(rows)))
    axes.set_title("chosen, and what works as well", fontsize="medium")
    axes.grid(alpha=0.3)


def _draw_plateaus(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    for name, own in group_by(rows, "architecture"):
        own = own.sort_values(STATE_PAPER)
        axes.plot(own[STATE_PAPER], own["on_plateau"], linewidth=1.2, markersize=5, **styles[name])
    axes.set_xscale("log", base=2)
    axes.set(ylim=(-0.05, 1.05), xlabel=f"{_AXES[STATE_PAPER]}, log scale")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("seeds on the plateau at the end", fontsize="medium")
    axes.grid(alpha=0.3)


def _names(rows: pd.DataFrame) -> list[str]:
    return list(json.loads(rows["chosen"].dropna().iloc[0]))


def _caption(study: Study, table: pd.DataFrame, axes_names: list[str]) -> str:
    text = (
        "Above: accuracy of the last prediction on unseen tasks of the dataset trained on, a line an architecture: at "
        "each size its configuration with the best score on validation (others of that size are faint), the mean over "
        "seeds with Student's 95% interval, or that of their sequences together if it is wider. Below left: the chosen "
        "value and, as a bar, the values around it whose score is within 2 points of accuracy (or 2% of the loss). "
        "Hollow: the best candidate is at the edge of the grid, so that a better one may lie beyond; it is not tuned. "
    )
    constant = [words for axis, words in _AXES.items() if axis not in axes_names and table[axis].notna().all()]
    if constant:
        text += f"Equal for all, and so not drawn: {', '.join(constant)}. "
    if table[COMPUTE].isna().all():
        text += "These runs do not say how many flops a step took. "
    widths = [f"{name}: {_width(own)}" for name, own in group_by(table.dropna(subset=["window_low"]), "architecture")]
    if widths:
        text += f"Median width of what works: {'; '.join(widths)}. "
    return text + selections.sentence(study.table, study.trials)


def _width(own: pd.DataFrame) -> str:
    ratio = (own["window_high"] / own["window_low"]).median()
    factor = f"a factor of {ratio:.3g}" if math.isfinite(ratio) and ratio > 1 else "one value"
    return f"{factor} ({own['working'].median():g} of {own['candidates'].max()} candidates)"
