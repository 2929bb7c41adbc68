"""The training loss that runs end with, and whether it comes in two clusters: memorizing and generalizing, as in Fig 5 of the paper."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis import clusters, groups
from gpicl_flax.analysis.chart import COLOURS, Chart
from gpicl_flax.analysis.clusters import Clusters
from gpicl_flax.analysis.study import Study
from gpicl_flax.records import plateau
from gpicl_flax.records.run_folder import DONE

_SAME = ["setting", "intervention"]
_LOWER, _UPPER, _ONE = COLOURS[2], COLOURS[1], "0.35"
_BINS = 30


def numbers(study: Study) -> pd.DataFrame:
    """A row for each setting, intervention and number of tasks with at least `clusters.FEWEST` runs, and one for all of these.

    Columns: setting, intervention, num_tasks (missing: all of them together, where there are several), runs, bimodal,
    p_value, separation, low_mean, high_mean (nats), low_share, high_share and cut, as in `clusters.Clusters`. The p values are
    not corrected for the number of tests. Runs that are not done do not count.
    """
    rows = []
    for same, runs in _tested(study).groupby(_SAME):
        by_number = list(runs.groupby("num_tasks"))
        for count, own in by_number if len(by_number) == 1 else [*by_number, (math.nan, runs)]:
            row = dict(zip(_SAME, same, strict=True)) | {"num_tasks": count, "runs": len(own)}
            found = clusters.find(own["last_loss_ema"].to_numpy())
            rows.append(row | (_columns(found) if isinstance(found, Clusters) else {"bimodal": False}))
    columns = [*_SAME, "num_tasks", "runs", "bimodal", "p_value", "separation"]
    columns += ["low_mean", "high_mean", "low_share", "high_share", "cut"]
    return pd.DataFrame(rows, columns=columns)


def _columns(found: Clusters) -> dict:
    (low_mean, high_mean), (low_share, high_share) = found.means, found.shares
    row = {"bimodal": found.bimodal, "p_value": found.p_value, "separation": found.separation, "low_mean": low_mean}
    return row | {"high_mean": high_mean, "low_share": low_share, "high_share": high_share, "cut": found.cut}


def _ended(study: Study) -> pd.DataFrame:
    done = study.table[study.table["ended"] == DONE]
    done = done.dropna(subset=[*_SAME, "num_tasks"])
    return done[np.isfinite(done["last_loss_ema"].astype(float))]


def _tested(study: Study) -> pd.DataFrame:
    """The runs that are done, of numbers of tasks with enough of them."""
    done = _ended(study)
    return done[done.groupby([*_SAME, "num_tasks"])["run_id"].transform("size") >= clusters.FEWEST]


def sentence(row: pd.Series) -> str:
    """What a row of `numbers` says."""
    of = "All numbers of tasks" if pd.isna(row["num_tasks"]) else f"K = {groups.number(row['num_tasks'])}"
    tested = f"p = {row['p_value']:.2g}, separation {row['separation']:.1f}, {row['runs']} runs"
    if pd.isna(row["p_value"]):
        return f"{of}: one value ({row['runs']} runs)."
    if not row["bimodal"]:
        return f"{of}: no two clusters ({tested})."
    return (
        f"{of}: two clusters ({tested}), {row['low_share']:.0%} of the runs around {row['low_mean']:.2f} nats and "
        f"{row['high_share']:.0%} around {row['high_mean']:.2f}."
    )


def draw(study: Study) -> Chart:
    """Left the final training loss of every run against the number of tasks, right their histogram; a row for each setting."""
    name, title = "final_losses", "Final training loss: one cluster or two"
    runs, table = _tested(study), numbers(study)
    if runs.empty:
        sizes = _ended(study).groupby([*_SAME, "num_tasks"]).size()
        needs = f"it takes {clusters.FEWEST} seeds of the same number of tasks that are done; there are {sizes.max() if len(sizes) else 0}"
        return Chart(name, title, f"Not drawn: {needs}.", numbers=table)
    panels = list(runs.groupby(_SAME))
    figure = Figure(figsize=(9.5, 3.1 * len(panels) + 0.5), layout="constrained")
    grid = figure.subplots(len(panels), 2, squeeze=False, sharey="row", width_ratios=[3, 1])
    for (left, right), (panel, own) in zip(grid, panels, strict=True):
        rows = table[(table[_SAME] == list(panel)).all(axis=1)]
        _draw_strip(left, own, rows.iloc[-1])
        _draw_histogram(right, own, rows.iloc[-1])
        left.set_title(", ".join(dict.fromkeys(panel)), fontsize="medium")
        left.set_ylabel("final training loss (nats)")
    grid[-1, 0].set_xlabel("number of tasks K")
    grid[-1, 1].set_xlabel("runs")
    looks = {"of the lower cluster": _LOWER, "of the upper cluster": _UPPER, "no two clusters": _ONE}
    lines = [Line2D([], [], marker="o", linestyle="none", color=colour) for colour in looks.values()]
    figure.legend(lines, list(looks), loc="outside upper center", ncols=3, frameon=False)
    return Chart(name, title, _caption(study, runs, table), figure, table)


def _colours(losses: pd.Series, row: pd.Series) -> np.ndarray:
    return np.where(losses < row["cut"], _LOWER, _UPPER) if row["bimodal"] else np.full(len(losses), _ONE)


def _draw_strip(axes: Axes, runs: pd.DataFrame, row: pd.Series) -> None:
    """A dot for each run, in the colour of its cluster."""
    counts = sorted(runs["num_tasks"].unique())
    for place, count in enumerate(counts):
        own = runs[runs["num_tasks"] == count].sort_values("seed")["last_loss_ema"]
        across = place + np.linspace(-0.25, 0.25, len(own))
        axes.scatter(across, own, c=_colours(own, row), s=16, alpha=0.75, linewidths=0)
    axes.set_xticks(range(len(counts)), [groups.number(count) for count in counts])
    axes.grid(axis="y", alpha=0.3)


def _draw_histogram(axes: Axes, runs: pd.DataFrame, row: pd.Series) -> None:
    """How many runs have each loss."""
    losses = runs["last_loss_ema"]
    bins = np.histogram_bin_edges(losses, _BINS)
    for colour in dict.fromkeys(_colours(losses, row)):
        axes.hist(losses[_colours(losses, row) == colour], bins, orientation="horizontal", color=colour, alpha=0.75)
    axes.grid(axis="y", alpha=0.3)


def _caption(study: Study, runs: pd.DataFrame, table: pd.DataFrame) -> str:
    text = (
        f"The training loss at the end, averaged over about {plateau.EMA_STEPS} steps: left a dot for each run, right all of them; "
        "the colours are of the clusters that all have together. "
        "Two clusters: Silverman's test rejects that the losses have one mode "
        f"(p < {clusters.SIGNIFICANCE:g}, not corrected for the number of tests), the two best clusters are more than "
        f"{clusters.SEPARATION:g} of their standard deviations apart (Ashman's D), and the smaller has {clusters.SMALLEST} runs or more. "
        "Losses of all numbers of tasks may also cluster because numbers are few and far apart."
    )
    if len(runs) < len(study.table):
        text += f" {len(study.table) - len(runs)} of {len(study.table)} runs are not done, or fewer than {clusters.FEWEST} alike, and are left out."
    several = len(table[_SAME].drop_duplicates()) > 1
    for _, row in table.iterrows():
        text += f" {row['setting']}, {row['intervention']}, {sentence(row)}" if several else f" {sentence(row)}"
    return text
