"""A figure of a report with what belongs to it, and the look that figures share."""

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

T = TypeVar("T")

# Okabe and Ito's palette, which colour-blind readers can tell apart; its black is the baseline's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLACK = "#000000"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure, or why there is none.

    Attributes:
      name: of its files, without their ending.
      title: a heading.
      caption: a paragraph that says what is shown and how it was computed; where there is no figure, why.
      figure: or None.
      numbers: what the figure shows, as a table.
      paper: which figure or table of the paper it is: 'Figure 2'.
      ours: what it says beside values of `published.VALUES`, by their keys, in words.
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
        """The title, after the number that it has in the paper."""
        return f"{self.paper}: {self.title}" if self.paper else self.title

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        picture = ""
        if self.figure is not None:
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png", dpi=90)
            picture = f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">\n'
        return f"<h3>{html.escape(self.heading)}</h3>\n{picture}<p>{html.escape(self.caption)}</p>"


TELEMETRY = "a run with telemetry (Training.telemetry = @Telemetry())"  # what several figures need


def missing(needs: Mapping[str, bool]) -> str:
    """One line that says which of its needs a figure lacks; '' if none. They are noun phrases."""
    lacks = [words for words, has in needs.items() if not has]
    return f"Needs {' and '.join(lacks)}." if lacks else ""


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (4.2, 3.3), **options
) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes of a size in inches, in rows of up to `columns`; `options` as of `Figure.subplots`."""
    columns = 2 if (count, columns) == (4, 3) else min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def first(values: Sequence[T], most: int, noun: str) -> tuple[Sequence[T], str]:
    """The first of the values, and a sentence about those left out, or ''."""
    if len(values) <= most:
        return values, ""
    return values[:most], f" Drawn are the first {most} of {len(values)} {noun}; the numbers have all."


def shades(values: Sequence[float], colours: str = "viridis") -> dict[float, tuple]:
    """A colour for each of a few numbers, from dark to light, which keep their order in grey, too."""
    return dict(zip(values, colormaps[colours](np.linspace(0, 0.88, len(values))), strict=True))


def test_style(test_dataset: str, tasks: str, datasets: Sequence[str]) -> dict[str, Any]:
    """The look of what was measured on seen or unseen tasks of one of the base datasets."""
    return {
        "color": COLOURS[list(datasets).index(test_dataset) % len(COLOURS)],
        "linestyle": "-" if tasks == "unseen" else "--",
        "marker": "o" if tasks == "unseen" else "s",
        "label": f"{tasks} tasks, {test_dataset}",
    }


def spec_of(axes: Axes) -> SubplotSpec:
    """Where axes of `panels` are in their grid."""
    spec = axes.get_subplotspec()
    assert spec is not None  # axes that are in no grid have none
    return spec


def title(axes: Axes, what: str, condition: str) -> None:
    """What a panel shows, and below it, on as many lines as it takes, what is special about its runs, if anything."""
    axes.set_title("\n".join([what, *textwrap.wrap(condition, 52)]), fontsize="medium")


def legend(figure: Figure, columns: int = 4, extra: Sequence = ()) -> None:
    """One legend for all axes, with every label once, and with more handles.

    It has fewer columns if so many are too wide.
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
    """A colour and a dash for each; the baseline is black. Those after the sixth repeat colours with other dashes."""
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
    """A logarithmic horizontal axis of steps from `low` to `high`, with numbers in full."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes, low, high)


def count_ticks(axes: Axes) -> None:
    """A few whole numbers, in full, on a horizontal axis that counts steps or examples."""
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Labels 1, 2 and 5 times the powers of ten on a logarithmic axis.

    The powers alone where it is long, more where it is short.
    """
    subs = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 8 else (1, 2, 5) if high / low < 200 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name on the vertical axis, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)
