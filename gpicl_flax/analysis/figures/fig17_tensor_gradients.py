"""Fig 17: the parameter tensors with a gradient, and whether it keeps its direction, on the plateau and after it."""

import re

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, diagnostics, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart

_PAPER, _NAME, _TITLE = "Figure 17", "tensor_gradients", "Gradients by parameter tensor"
_QUANTITIES = {
    "grad_norm": "L2 norm of the gradient (log scale)",
    "grad_cosine": "cosine of consecutive gradients",
}
_PHASES = {"on the plateau": (COLOURS[0], "o"), "after the drop": (COLOURS[1], "D")}
_LOW, _HIGH = 0.1, 0.9


@registry.register_paper_figure(17)
def draw(study: Study) -> Chart:
    """Draws a run with telemetry, if possible one that has left its plateau."""
    run = study.measured_drop()
    return Chart(_NAME, _TITLE, chart.missing({chart.TELEMETRY: False}), paper=_PAPER) if run is None else draw_run(run)


@registry.register_run_figure(5)
def draw_run(run: OneRun) -> Chart:
    """Draws a row for each parameter tensor: the norm of its gradient, and the cosine of consecutive ones."""
    name, title = f"{_NAME}_{run.run_id}", f"{_TITLE} in {run.run_id}"
    drops = diagnostics.drops(run, diagnostics.numbers(run))
    table = numbers(run, next(reversed(drops.values()), None))
    if table.empty:
        return Chart(name, title, chart.missing({chart.TELEMETRY: False}), paper=_PAPER)
    tensors = list(dict.fromkeys(table["tensor"]))
    figure = Figure(figsize=(11, 0.21 * len(tensors) + 1.4), layout="constrained")
    grid = figure.subplots(1, len(_QUANTITIES), sharey=True)
    for axes, (quantity, words) in zip(grid, _QUANTITIES.items(), strict=True):
        chart.name_rows(axes, tensors)
        _draw_rows(axes, table[table["quantity"] == quantity], tensors)
        axes.set_xlabel(words)
    grid[0].set_xscale("log")
    grid[1].axvline(0, color="0.5", linewidth=0.8, zorder=1)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return Chart(name, title, _caption(drops), figure, table, _PAPER)


def numbers(run: OneRun, drop: int | None) -> pd.DataFrame:
    """Returns a row for each tensor, phase (on the plateau or after the drop) and quantity.

    Further columns: its median, low and high, the 10th and 90th percentiles, and the number of measurements. Tensors
    are in the order of the model's layers by their numbers.

    Args:
      run: a run with telemetry.
      drop: the step at which the plateau was left; None: it was not.
    """
    rows = []
    for tensor in sorted(set(run.telemetry.columns.get_level_values("tensor")) - {""}, key=_natural):
        for quantity in _QUANTITIES:
            values = run.telemetry.get((tensor, quantity), pd.Series(dtype=float)).dropna()
            before = values.index < (float("inf") if drop is None else drop)
            for phase, own in zip(_PHASES, (values[before], values[~before]), strict=True):
                if len(own):
                    low, median, high = own.quantile([_LOW, 0.5, _HIGH])
                    rows.append((tensor, phase, quantity, median, low, high, len(own)))
    return pd.DataFrame(rows, columns=["tensor", "phase", "quantity", "median", "low", "high", "measurements"])


def _natural(path: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]


def _draw_rows(axes: Axes, table: pd.DataFrame, tensors: list[str]) -> None:
    phases = [phase for phase in _PHASES if (table["phase"] == phase).any()]
    for place, phase in enumerate(phases):
        rows = table[table["phase"] == phase]
        at = rows["tensor"].map(tensors.index) + 0.3 * (place - (len(phases) - 1) / 2)
        colour, marker = _PHASES[phase]
        axes.hlines(at, rows["low"], rows["high"], color=colour, linewidth=1.2)
        axes.plot(rows["median"], at, marker, color=colour, markersize=3.5, label=phase)


def _caption(drops: dict[str, int]) -> str:
    return (
        "For each parameter tensor the median over the measurements along training, and the range from the 10th to the "
        f"90th percentile. {diagnostics.drops_in_words(drops)}"
        + (" The last of these tells the phases apart." if len(drops) > 1 else "")
    )
