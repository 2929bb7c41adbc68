"""A figure of a report with its title, caption and numbers, and the style that figures share."""

import base64
import dataclasses
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, StrMethodFormatter

from gpicl_flax.records.criteria import Criteria

T = TypeVar("T")

# Okabe and Ito's palette, which colour-blind readers can distinguish. Its black is for the baseline.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLACK = "#000000"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure, or the reason why there is none.

    Attributes:
      name: the name of its files, without their ending.
      title: a heading.
      caption: a paragraph that explains what is shown and how it was computed; where there is no figure, why.
      figure: the figure, or None.
      numbers: the data of the figure, as a table.
      paper: the figure or table of the paper that it corresponds to: 'Figure 2'.
      ours: its statements beside values of `published.VALUES`, by their keys, in words.
    """

    name: str
    title: str
    caption: str
    figure: Figure | None = None
    numbers: pd.DataFrame | None = None
    paper: str = ""
    ours: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The title, after the number of the figure in the paper."""
        return f"{self.paper}: {self.title}" if self.paper else self.title

    def _repr_html_(self) -> str:
        """Returns the HTML that a notebook shows."""
        picture = ""
        if self.figure is not None:
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png", dpi=90)
            picture = f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">\n'
        return f"<h3>{html.escape(self.heading)}</h3>\n{picture}<p>{html.escape(self.caption)}</p>"


TELEMETRY = "a run with telemetry (Training.telemetry = @Telemetry())"  # which several figures need


def missing(needs: Mapping[str, bool]) -> str:
    """Returns one line with the unmet needs of a figure; '' if there are none. They are noun phrases."""
    lacks = [words for words, has in needs.items() if not has]
    return f"Needs {' and '.join(lacks)}." if lacks else ""


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (4.2, 3.3), **options
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a number of axes of a size in inches, in rows of up to `columns`.

    `options` are those of `Figure.subplots`.
    """
    columns = 2 if (count, columns) == (4, 3) else min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def first(values: Sequence[T], most: int, noun: str) -> tuple[Sequence[T], str]:
    """Returns the first of the values, and a sentence about those that are left out, or ''."""
    if len(values) <= most:
        return values, ""
    return values[:most], f" Drawn are the first {most} of {len(values)} {noun}; the numbers have all."


def shades(values: Sequence[float], colours: str = "viridis") -> dict[float, tuple]:
    """Returns a colour for each of a few numbers, from dark to light, which keep their order in grey, too."""
    return dict(zip(values, colormaps[colours](np.linspace(0, 0.88, len(values))), strict=True))


def test_style(test_dataset: str, tasks: str, datasets: Sequence[str]) -> dict[str, Any]:
    """Returns the style of measurements on seen or unseen tasks of one of the base datasets."""
    return {
        "color": COLOURS[list(datasets).index(test_dataset) % len(COLOURS)],
        "linestyle": "-" if tasks == "unseen" else "--",
        "marker": "o" if tasks == "unseen" else "s",
        "label": f"{tasks} tasks, {test_dataset}",
    }


def spec_of(axes: Axes) -> SubplotSpec:
    """Returns the position of axes of `panels` in their grid."""
    spec = axes.get_subplotspec()
    assert spec is not None  # only axes outside of a grid have none
    return spec


def title(axes: Axes, what: str, condition: str) -> None:
    """Writes what a panel shows and, below it, the condition of its runs, if there is one.

    The condition takes as many lines as it needs.
    """
    axes.set_title("\n".join([what, *textwrap.wrap(condition, 52)]), fontsize="medium")


def legend(figure: Figure, columns: int = 4, extra: Sequence = ()) -> None:
    """Draws one legend for all axes, with every label once, and with extra handles.

    It has fewer columns if `columns` are too wide.
    """
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    found |= {handle.get_label(): handle for handle in extra}
    for count in range(columns, 0, -1):
        made = figure.legend(found.values(), found.keys(), loc="outside lower center", frameon=False, ncols=count)
        if count == 1 or made.get_window_extent().width <= figure.bbox.width:
            return
        made.remove()


def line_styles(interventions: Sequence[str], baseline: str) -> dict[str, dict]:
    """Returns a colour and a dash for each; the baseline is black. After six, colours repeat with other dashes."""
    others = [name for name in interventions if name != baseline]
    styles = {
        name: {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
        }
        for index, name in enumerate(others)
    }
    return styles | {baseline: {"color": BLACK, "linestyle": "-"}}


def log_steps(axes: Axes, low: float, high: float) -> None:
    """Sets a logarithmic horizontal axis of steps from `low` to `high`, with numbers in full."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes, low, high)


def count_ticks(axes: Axes) -> None:
    """Sets a few whole numbers, in full, on a horizontal axis that counts steps or examples."""
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Sets labels at 1, 2 and 5 times the powers of ten on a logarithmic axis.

    A long axis has only the powers, and a short one has more labels.
    """
    subs = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 8 else (1, 2, 5) if high / low < 200 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Sets a row for each name on the vertical axis, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)


def loss_in_words(criteria: Criteria | None) -> str:
    """Returns the loss of a run with its unit: cross entropy, squared error, or a normal's negative log likelihood."""
    if criteria is None or criteria.score == "accuracy":
        return "cross entropy (nats)"
    return "squared error" if criteria.score == "loss" else "negative log likelihood (nats)"
