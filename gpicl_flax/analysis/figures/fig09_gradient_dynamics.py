"""Figs 9 and 16: how gradients, updates and parameters move on the plateau and after it, run beside run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy import ndimage

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart

_PAPER, _NAME, _TITLE = (
    "Figures 9, 16",
    "gradient_dynamics",
    "Gradients, updates and the way from the initial parameters",
)
_RUNS = 8  # that are drawn
_WIDTH = 0.01  # standard deviation of the Gaussian that smooths, as a fraction of a run's measurements
_QUANTITIES = {
    "grad_cosine": "cosine of\nconsecutive gradients",
    "grad_norm": "L2 norm of\nthe gradient",
    "update_cosine": "cosine of\nconsecutive updates",
    "update_norm": "L2 norm of\nthe update",
}
# The columns of the figure, as in Fig 16: their quantities and titles.
_COLUMNS = (
    {
        "loss_ema": "training loss,\naverage (nats)",
        "unseen_loss": "loss on unseen tasks\n(nats, log scale)",
        "initial_distance": "L2 distance from the\ninitial parameters",
    },
    *(
        {
            f"{form}_{name}": f"{words},\n{form}"
            for name, words in _QUANTITIES.items()
            if name.endswith(kind)
            for form in ("smoothed", "cumulative")
        }
        for kind in ("cosine", "norm")
    ),
)


@registry.register_paper_figure(9)
def draw(study: Study) -> Chart:
    """Draws a curve for each setting and intervention with telemetry: that of its run with the lowest seed."""
    chosen = study.measured()
    labels = _labels(
        [[*panel.split(", "), kind] for panel, kind in zip(chosen["panel"], chosen["intervention"], strict=True)]
    )
    drawn = _draw({name: study.run(at) for name, at in zip(labels[:_RUNS], chosen.index, strict=False)})
    if len(chosen) <= _RUNS:
        return drawn
    return dataclasses.replace(drawn, caption=f"{drawn.caption} {len(chosen) - _RUNS} further runs are not drawn.")


@registry.register_run_figure(3)
def draw_run(run: OneRun) -> Chart:
    """Draws the curves of one run."""
    return _draw({run.run_id: run} if len(run.telemetry) else {})


def numbers(run: OneRun) -> pd.DataFrame:
    """Returns the figure's data of a run: a row for each step with telemetry or diagnostics.

    Values that were not measured at a step are missing. `cumulative` is the sum over the steps, where each measurement
    counts for all steps since the previous one. `smoothed` uses a Gaussian. Both skip values that were not finite.
    """
    whole: Any = run.telemetry.get("", pd.DataFrame(index=run.telemetry.index))
    whole = whole.reindex(columns=["initial_distance", *_QUANTITIES])
    for name in _QUANTITIES:
        whole[f"smoothed_{name}"] = _smoothed(whole[name])
        whole[f"cumulative_{name}"] = whole[name].fillna(0).mul(np.diff(whole.index, prepend=0)).cumsum()
    unseen = pd.Series({step: values.get("unseen_loss") for step, values in run.diagnostics.items()}, dtype=object)
    table = whole.join(pd.to_numeric(unseen, errors="coerce").rename("unseen_loss").rename_axis("step"), how="outer")
    return table.join(run.metrics["loss_ema"]).reset_index()


def _smoothed(values: pd.Series) -> np.ndarray:
    width = max(1.0, _WIDTH * len(values))
    weights = ndimage.gaussian_filter1d(values.notna().to_numpy(float), width, mode="constant")
    sums = ndimage.gaussian_filter1d(values.fillna(0).to_numpy(float), width, mode="constant")
    return np.divide(sums, weights, out=np.full(len(values), np.nan), where=weights > 0)


def _labels(names: Sequence[Sequence[str]]) -> list[str]:
    """Returns for each run the names, of its setting and intervention, that it does not share with all others."""
    common = set.intersection(*map(set, names)) if len(names) > 1 else set()
    return [", ".join(name for name in own if name not in common) for own in names]


def _draw(runs: Mapping[str, OneRun]) -> Chart:
    if not runs:
        return Chart(_NAME, _TITLE, chart.missing({chart.TELEMETRY: False}), paper=_PAPER)
    table = pd.concat([numbers(run).assign(run=name) for name, run in runs.items()], ignore_index=True)
    figure = Figure(figsize=(13, 10), layout="constrained")
    grid = figure.subplots(max(map(len, _COLUMNS)), len(_COLUMNS), sharex=True)
    styles = chart.line_styles(list(runs), BASELINE)
    handles = {}
    for column, panels in zip(grid.T, _COLUMNS, strict=True):
        for axes, (quantity, words) in zip(column, panels.items(), strict=False):
            for name, rows in group_by(table, "run", sort=False):
                rows = rows.dropna(subset=quantity)
                (handles[name],) = axes.plot(rows["step"], rows[quantity], linewidth=1.5, **styles[name])
            _finish(axes, quantity, words, known=bool(table[quantity].notna().any()))
        for axes in column[len(panels) :]:
            axes.axis("off")
            axes.legend(handles.values(), handles, loc="center left", frameon=False)
    figure.supxlabel("training step", fontsize="medium")
    figure.align_ylabels()
    return Chart(_NAME, _TITLE, _CAPTION, figure, table, _PAPER)


def _finish(axes: Axes, quantity: str, words: str, known: bool) -> None:
    axes.set_ylabel(words)
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelbottom=True)
    if quantity.startswith("smoothed") and quantity.endswith("cosine"):
        axes.set_ylim(-1.05, 1.05)
        axes.axhline(0, color="0.5", linewidth=0.8, zorder=1)
    if not known:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="0.4")
    elif quantity == "unseen_loss":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


_CAPTION = (
    "One run a curve, the one with the lowest seed where runs differ in nothing else. The cosines are those of the "
    "gradients, and of the updates that the optimiser makes of them, of two consecutive steps. Cumulative is the sum "
    "over the steps, each measurement standing for the steps since the one before; smoothed is by a Gaussian of "
    f"{_WIDTH:.0%} of the measurements. The training loss is its average as metrics.jsonl has it; the loss on unseen "
    "tasks is that of the diagnostics."
)
