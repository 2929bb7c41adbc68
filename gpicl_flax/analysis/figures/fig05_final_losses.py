"""Fig 5: the training loss at the end of runs.

Does it have two clusters, memorizing and generalizing?
"""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.analysis.stats import clusters
from gpicl_flax.analysis.stats.clusters import Clusters
from gpicl_flax.records import plateau

_PAPER, _NAME, _TITLE = "Figure 5", "final_losses", "Final training loss: one cluster or two"
_LOWER, _UPPER, _ONE = COLOURS[2], COLOURS[1], "0.35"
_BINS = 30
_MOST = 4  # conditions that are drawn


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition and number of tasks with at least `clusters.FEWEST` runs, and one for all.

    Columns: condition (see `groups.conditions`), num_tasks (missing in the row for all of them, where there are
    several), runs, bimodal, p_value, separation, low_mean, high_mean (nats), low_share, high_share and cut, as in
    `clusters.Clusters`. The p values are not corrected for the number of tests. Runs that are not done do not count.
    """
    rows = []
    for condition, runs in group_by(_tested(study), "condition"):
        by_number = group_by(runs, "num_tasks")
        for count, own in by_number if len(by_number) == 1 else [*by_number, (math.nan, runs)]:
            row = {"condition": condition, "num_tasks": count, "runs": len(own)}
            found = clusters.find(own["last_loss_ema"].to_numpy())
            rows.append(row | (_columns(found) if isinstance(found, Clusters) else {"bimodal": False}))
    columns = ["condition", "num_tasks", "runs", "bimodal", "p_value", "separation"]
    columns += ["low_mean", "high_mean", "low_share", "high_share", "cut"]
    return pd.DataFrame(rows, columns=columns)


def _columns(found: Clusters) -> dict:
    (low_mean, high_mean), (low_share, high_share) = found.means, found.shares
    row = {"bimodal": found.bimodal, "p_value": found.p_value, "separation": found.separation, "low_mean": low_mean}
    return row | {"high_mean": high_mean, "low_share": low_share, "high_share": high_share, "cut": found.cut}


def _tested(study: Study) -> pd.DataFrame:
    """Returns the runs that are done, of conditions and numbers of tasks with enough of them."""
    done = study.ended().dropna(subset=["num_tasks"])
    done = done[np.isfinite(done["last_loss_ema"].astype(float))]
    done = done.assign(condition=conditions(done, [], across_tasks=True))
    return done[done.groupby(["condition", "num_tasks"])["run_id"].transform("size") >= clusters.FEWEST]


def sentence(row: pd.Series) -> str:
    """Returns a row of `numbers` in words."""
    group = "All numbers of tasks" if pd.isna(row["num_tasks"]) else f"K = {groups.number(row['num_tasks'])}"
    tested = f"p = {row['p_value']:.2g}, separation {row['separation']:.1f}, {row['runs']} runs"
    if pd.isna(row["p_value"]):
        return f"{group}: one value ({row['runs']} runs)."
    if not row["bimodal"]:
        return f"{group}: no two clusters ({tested})."
    return (
        f"{group}: two clusters ({tested}), {row['low_share']:.0%} of the runs around {row['low_mean']:.2f} nats and "
        f"{row['high_share']:.0%} around {row['high_mean']:.2f}."
    )


@registry.register_paper_figure(5)
def draw(study: Study) -> Chart:
    """Draws a row for each setting.

    On the left is the final training loss of every run against the number of tasks, on the right their histogram.
    """
    runs, table = _tested(study), numbers(study)
    lacks = chart.missing(
        {f"at least {clusters.FEWEST} seeds of the same number of tasks that are done": len(runs) > 0}
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(group_by(runs, "condition"), _MOST, "settings")
    figure = Figure(figsize=(9.5, 3.1 * len(kinds) + 0.5), layout="constrained")
    grid = figure.subplots(len(kinds), 2, squeeze=False, sharey="row", width_ratios=[3, 1])
    for (left, right), (condition, own) in zip(grid, kinds, strict=True):
        whole = table[table["condition"] == condition].iloc[-1]
        _draw_strip(left, own, whole)
        _draw_histogram(right, own, whole)
        left.set_title(condition, fontsize="medium")
        left.set_ylabel("final training loss (nats)")
    grid[-1, 0].set_xlabel("number of tasks K")
    grid[-1, 1].set_xlabel("runs")
    looks = {"of the lower cluster": _LOWER, "of the upper cluster": _UPPER, "no two clusters": _ONE}
    lines = [Line2D([], [], marker="o", linestyle="none", color=colour) for colour in looks.values()]
    figure.legend(lines, list(looks), loc="outside upper center", ncols=3, frameon=False)
    return Chart(
        _NAME, _TITLE, _caption(study, runs, table) + more, figure, table, _PAPER, {"clusters_part": _ours(table)}
    )


def _colours(losses: pd.Series, row: pd.Series) -> np.ndarray:
    return np.where(losses < row["cut"], _LOWER, _UPPER) if row["bimodal"] else np.full(len(losses), _ONE)


def _draw_strip(axes: Axes, runs: pd.DataFrame, row: pd.Series) -> None:
    """Draws a dot for each run, in the colour of its cluster."""
    counts = sorted(runs["num_tasks"].unique())
    for place, count in enumerate(counts):
        own = runs[runs["num_tasks"] == count].sort_values("seed")["last_loss_ema"]
        across = place + 0.5 + np.linspace(-0.25, 0.25, len(own))
        axes.scatter(across, own, c=_colours(own, row), s=16, alpha=0.75, linewidths=0)
    log2_axis.name_cells(axes.xaxis, counts)
    axes.grid(axis="y", alpha=0.3)


def _draw_histogram(axes: Axes, runs: pd.DataFrame, row: pd.Series) -> None:
    """Draws how many runs have each loss."""
    losses = runs["last_loss_ema"]
    bins = np.histogram_bin_edges(losses, _BINS).tolist()
    for colour in dict.fromkeys(_colours(losses, row)):
        axes.hist(losses[_colours(losses, row) == colour], bins, orientation="horizontal", color=colour, alpha=0.75)
    axes.grid(axis="y", alpha=0.3)


def _caption(study: Study, runs: pd.DataFrame, table: pd.DataFrame) -> str:
    text = (
        f"The training loss at the end, averaged over about {plateau.EMA_STEPS} steps: left a dot for each run, right "
        "all of them; the colours are of the clusters that all have together. Two clusters: Silverman's test rejects "
        f"that the losses have one mode (p < {clusters.SIGNIFICANCE:g}, not corrected for the number of tests), the "
        f"two best clusters are more than {clusters.SEPARATION:g} of their standard deviations apart (Ashman's D), and "
        f"the smaller has {clusters.SMALLEST} runs or more. Losses of all numbers of tasks may also cluster because "
        "numbers are few and far apart."
    )
    if len(runs) < len(study.table):
        text += (
            f" {len(study.table) - len(runs)} of {len(study.table)} runs are not done, or fewer than {clusters.FEWEST} "
            "alike, and are left out."
        )
    for _, row in table.iterrows():
        text += f" {row['condition']}, {sentence(row)}" if row["condition"] else f" {sentence(row)}"
    return text


def _ours(table: pd.DataFrame) -> str:
    """Returns the smallest number of tasks whose runs have two clusters, in words."""
    by_number = table.dropna(subset="num_tasks")
    fewest = by_number[by_number["bimodal"].astype(bool)]["num_tasks"].min()
    if pd.isna(fewest):
        return f"no two clusters, up to {groups.tasks(by_number['num_tasks'].max())}"
    return f"two clusters with {groups.tasks(fewest)} at the fewest"
