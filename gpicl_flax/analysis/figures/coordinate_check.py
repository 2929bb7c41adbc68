"""The picture of a coordinate check: how much the activations of each layer change, by width or depth."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.figures import chart, log2_axis

_SIZE = (3.0, 2.8)  # inches of a panel


def draw(found: pd.DataFrame) -> Figure:
    """Draws a row of panels for each parametrisation and axis, a panel for each step, a line for each layer.

    Args:
      found: a `coordinates.table`.
    """
    cells = group_by(found, ["parametrization", "axis"], sort=False)
    steps = sorted(found["step"].unique())
    layers = list(dict.fromkeys(found["layer"]))
    styles = chart.line_styles(layers, "logits")
    figure = Figure(figsize=(_SIZE[0] * len(steps) + 3, _SIZE[1] * len(cells) + 0.5), layout="constrained")
    grid = figure.subplots(len(cells), len(steps), squeeze=False, sharey=True)
    for row, ((parametrization, axis), rows) in zip(grid, cells, strict=True):
        for axes, step in zip(row, steps, strict=True):
            _draw_step(axes, rows[rows["step"] == step], styles)
            axes.set_xlabel(f"{axis} (log scale)")
            axes.set_title(f"{parametrization}, after {step} {'step' if step == 1 else 'steps'}", fontsize="medium")
        row[0].set_ylabel("change of activations\n(root mean square)")
    handles = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside right upper",
        frameon=False,
        fontsize="x-small",
        labelspacing=0.25,
    )
    return figure


def _draw_step(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict]) -> None:
    places = log2_axis.places_of(rows["value"])
    for layer, line in group_by(rows, "layer", sort=False):
        own = line.dropna(subset=["change"])
        axes.plot(own["value"].map(places), own["change"], marker=".", linewidth=1.2, label=layer, **styles[layer])
    axes.set_yscale("log")
    log2_axis.name(axes.xaxis, places, powers=False)
    axes.grid(alpha=0.3)
