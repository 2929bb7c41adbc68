"""Accuracy against state size and against parameter count, as in Fig 6 and 13 of the paper."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis import chart, configurations
from gpicl_flax.analysis.chart import Chart
from gpicl_flax.analysis.configurations import PARAMETERS, STATE_EXACT, STATE_PAPER
from gpicl_flax.analysis.study import Study

_WORDS = {
    STATE_PAPER: "state size (as the paper counts)",
    STATE_EXACT: "state size (all numbers kept)",
    PARAMETERS: "parameter count",
}
_MARKERS = "osD^vPX*<>"
_BLACK = "Transformer"
_TICKS = 7  # about so many on an axis


def draw(study: Study, *, state: str = STATE_PAPER) -> Chart:
    """Left the accuracy of the last prediction against the state size, right against the parameter count.

    A row for each test (tasks seen or unseen, and base dataset); a colour and a marker for each architecture. The numbers are
    those of `configurations.table`.

    Args:
      state: which count of the state, `STATE_PAPER` or `STATE_EXACT`.
    """
    name, title = "state_size", "Accuracy against state size and parameter count"
    table = configurations.table(study)
    tests = [(test, rows) for test, rows in configurations.by_test(table) if rows[state].nunique() > 1]
    if not tests:
        why = "all have the same state size" if len(table) else "there is none that tells its sizes and its accuracy"
        return Chart(name, title, f"Not drawn: it takes runs of two or more state sizes that are done; {why}.")
    table = pd.concat([rows for _, rows in tests], ignore_index=True)
    sizes = (state, PARAMETERS)
    architectures = sorted(table["architecture"].unique())
    styles = chart.line_styles(architectures, _BLACK)
    markers = {x: _MARKERS[index % len(_MARKERS)] for index, x in enumerate(architectures)}
    figure = Figure(figsize=(11.5, 2.9 * len(tests) + 0.6), layout="constrained")
    grid = figure.subplots(len(tests), 2, squeeze=False, sharex="col", sharey=True)
    handles = {}
    for row, (test, rows) in zip(grid, tests, strict=True):
        for axes, size in zip(row, sizes, strict=True):
            handles["chance"] = axes.axhline(rows["chance"].iloc[0], color="0.5", linestyle=":", label="chance")
            for architecture, own in rows.groupby("architecture"):
                style = styles[architecture] | {"marker": markers[architecture]}
                if own["baseline"].any():
                    style |= {"markerfacecolor": "white", "zorder": 3}
                handles[architecture] = _draw_architecture(axes, own, size, _zero(table[size]), style)
            axes.set_title(configurations.name_of(test, table), fontsize="medium")
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(alpha=0.3)
            _log_sizes(axes, table[size])
        row[0].set_ylabel("accuracy of the\nlast prediction")
    for axes, size in zip(grid[-1], sizes, strict=True):
        axes.set_xlabel(f"{_WORDS[size]}, log scale")
    names = [*architectures, "chance"]
    labels = [f"{x} (baseline)" if x.split(",")[0] in configurations.BASELINES else x for x in names]
    figure.legend([handles[x] for x in names], labels, loc="outside right upper", frameon=False)
    return Chart(name, title, _caption(study, table), figure, table)


def _draw_architecture(axes: Axes, own: pd.DataFrame, size: str, zero: float, style: dict):
    """The configurations of one architecture, joined in the order of their sizes, each with its interval."""
    own = own.sort_values([size, "accuracy"])
    places = own[size].astype(float).replace(0, zero)
    for interval, width in (("seeds", 1.4), ("sequences", 0.7)):
        of = own["interval"] == interval
        axes.vlines(
            places[of], own["accuracy_low"][of], own["accuracy_high"][of], color=style["color"], linewidth=width
        )
    (line,) = axes.plot(places, own["accuracy"], linewidth=0.9, markersize=5, **style)
    return line


def _zero(sizes: pd.Series) -> float:
    """Where a size of 0 is drawn on a logarithmic axis: two octaves under the smallest other."""
    return sizes[sizes > 0].min() / 4


def _log_sizes(axes: Axes, sizes: pd.Series) -> None:
    """A logarithmic axis of powers of two, and of 0 where there is one."""
    axes.set_xscale("log", base=2)
    first, last = (math.log2(x) for x in (sizes[sizes > 0].min(), sizes.max()))
    every = max(1, round((last - first) / _TICKS))
    powers = np.arange(math.ceil(first), math.floor(last) + 1, every)
    ticks, labels = list(2.0**powers), [f"$2^{{{power}}}$" for power in powers]
    if (sizes == 0).any():
        ticks, labels = [_zero(sizes), *ticks], ["0", *labels]
    axes.set_xticks(ticks, labels)
    axes.set_xticks([], minor=True)
    axes.set_xlim((_zero(sizes) if (sizes == 0).any() else 2**first) / 1.5, 2**last * 1.5)


def _caption(study: Study, table: pd.DataFrame) -> str:
    seeds = table["seeds"]
    text = (
        "Accuracy of the last prediction of a sequence, of every configuration of every architecture: the mean over seeds "
        f"({seeds.min()} to {seeds.max()} of them) with Student's 95% interval over seeds"
        if seeds.max() > 1
        else "Accuracy of the last prediction of a sequence, of every configuration of every architecture, one seed each"
    )
    if (table["interval"] == "sequences").any():
        text += "; of a single seed the interval (thin) is Wilson's over the sequences of its meta-test, and no seeds are in it"
    text += ". Left and right are the same runs. Tasks are seen or unseen; their examples are of the test split."
    left_out = len(study.table) - len(configurations.counted(study))
    if left_out:
        text += f" {left_out} of {len(study.table)} runs are left out: they are not done, diverged or do not tell their sizes."
    return text
