"""Accuracy against state size and against parameter count, as in Fig 6 and 13 of the paper."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis.data import configurations
from gpicl_flax.analysis.data.configurations import PARAMETERS, STATE_EXACT, STATE_PAPER
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import Chart

_PAPER, _NAME, _TITLE = "Figures 6, 13", "state_size", "Accuracy against state size and parameter count"
_WORDS = {
    STATE_PAPER: "state size (as the paper counts)",
    STATE_EXACT: "state size (all numbers kept)",
    PARAMETERS: "parameter count",
}
_MARKERS = "osD^vPX*<>"
_BLACK = "Transformer"
_MOST = 6  # tests that are drawn


@registry.register_paper_figure(6)
def draw(study: Study, *, state: str = STATE_PAPER) -> Chart:
    """Draws the accuracy of the last prediction against the state size (left) and the parameter count (right).

    There is a row for each test (tasks seen or unseen, and base dataset), and a colour and a marker for each
    architecture. The numbers are those of `configurations.table`.

    Args:
      study: the runs.
      state: which count of the state, `STATE_PAPER` or `STATE_EXACT`.
    """
    # All tests share the axes, so that an architecture has the same place in every row.
    every = configurations.table(study)
    tests = [(test, rows) for test, rows in configurations.by_test(every) if rows[state].nunique() > 1]
    lacks = chart.missing({"runs that are done, of at least two state sizes, with a meta-test": bool(tests)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    tests, more = chart.first(tests, _MOST, "tests")
    table = pd.concat([rows for _, rows in tests], ignore_index=True)
    sizes = (state, PARAMETERS)
    architectures = sorted(table["architecture"].unique())
    styles = chart.line_styles(architectures, _BLACK)
    markers = {x: _MARKERS[index % len(_MARKERS)] for index, x in enumerate(architectures)}
    figure = Figure(figsize=(11.5, 2.9 * len(tests) + 0.6), layout="constrained")
    grid = figure.subplots(len(tests), 2, squeeze=False, sharex="col", sharey=True)
    places = {size: log2_axis.places_of(table[size]) for size in sizes}
    handles = {}
    for row, (test, rows) in zip(grid, tests, strict=True):
        for axes, size in zip(row, sizes, strict=True):
            handles["chance"] = axes.axhline(rows["chance"].iloc[0], color="0.5", linestyle=":", label="chance")
            for architecture, own in group_by(rows, "architecture"):
                style = styles[architecture] | {"marker": markers[architecture]}
                if own["baseline"].any():
                    style |= {"markerfacecolor": "white", "zorder": 3}
                handles[architecture] = _draw_architecture(axes, own, own[size].map(places[size]), style)
            axes.set_title(configurations.name_of(test, table), fontsize="medium")
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(alpha=0.3)
            log2_axis.name_powers(axes.xaxis, places[size])
        row[0].set_ylabel("accuracy of the\nlast prediction")
    for axes, size in zip(grid[-1], sizes, strict=True):
        axes.set_xlabel(f"{_WORDS[size]}, log scale")
    names = [*architectures, "chance"]
    labels = [f"{x} (baseline)" if x.split(",")[0] in configurations.BASELINES else x for x in names]
    figure.legend([handles[x] for x in names], labels, loc="outside right upper", frameon=False)
    return Chart(_NAME, _TITLE, _caption(study, table) + more, figure, every, _PAPER)


def _draw_architecture(axes: Axes, own: pd.DataFrame, places: pd.Series, style: dict):
    """Draws the configurations of one architecture, joined in the order of their places, each with its interval."""
    own = own.assign(place=places).sort_values(["place", "accuracy"])
    for interval, width in (("seeds", 1.4), ("sequences", 0.7)):
        rows = own[own["interval"] == interval]
        axes.vlines(rows["place"], rows["accuracy_low"], rows["accuracy_high"], color=style["color"], linewidth=width)
    (line,) = axes.plot(own["place"], own["accuracy"], linewidth=0.9, markersize=5, **style)
    return line


def _caption(study: Study, table: pd.DataFrame) -> str:
    seeds = table["seeds"]
    text = (
        "Accuracy of the last prediction of a sequence, of every configuration of every architecture: the mean over "
        f"seeds ({seeds.min()} to {seeds.max()} of them) with Student's 95% interval over seeds"
        if seeds.max() > 1
        else "Accuracy of the last prediction of a sequence, of every configuration of every architecture, one seed "
        "each"
    )
    if (table["interval"] == "sequences").any():
        text += (
            "; of a single seed the interval (thin) is Wilson's over the sequences of its meta-test, and no seeds are "
            "in it"
        )
    text += ". Left and right are the same runs. Tasks are seen or unseen; their examples are of the test split."
    left_out = len(study.table) - configurations.counted(study)["run_id"].nunique()
    if left_out:
        text += (
            f" {left_out} of {len(study.table)} runs are left out: they are not done, diverged or do not tell their "
            "sizes."
        )
    return text
