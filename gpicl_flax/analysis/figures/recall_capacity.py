"""Recall against the number of pairs and against the size of the state (as Arora et al. 2023, arXiv 2312.04927, do)."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import DASHES, Chart
from gpicl_flax.analysis.stats import intervals

_NAME, _TITLE = "recall_capacity", "Recall against pairs and state"
_FAMILY = "recall"  # the name of its data in run.json
_MARKERS = "os^vDxP*"


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each model, state size (exact) and number of pairs.

    Further columns: key_size, NaN for models without keys of a memory; mean, low and high of the accuracy at the asked
    positions of unseen tasks, runs, and condition. Among conditions, such as learning rates, it is the one with the
    lowest last training loss.
    """
    table = study.ended()
    table = table[table["base_dataset"] == _FAMILY]
    if table.empty:
        return pd.DataFrame(columns=["model", "state", "pairs", "key_size", "mean", "low", "high", "runs", "condition"])
    table = table.assign(pairs=table["sequence_length"].astype(int) // 2, state=table["state_size_exact"].astype(int))
    table["key_size"] = [_key_size(row) for _, row in table.iterrows()]
    axes = ["model", "state", "pairs"]
    table["condition"] = groups.conditions(table, axes)
    losses = table.groupby([*axes, "condition"])["last_loss_ema"].mean().reset_index()
    best = losses.loc[losses.groupby(axes)["last_loss_ema"].idxmin(), [*axes, "condition"]]
    tested = study.curves[study.curves["tasks"] == "unseen"].dropna(subset=["accuracy"])
    rows = table.merge(best, on=[*axes, "condition"]).merge(tested, on="run_id")
    for name in ("accuracy", "accuracy_low", "accuracy_high"):
        rows[name] = rows[name].map(np.mean)
    found = intervals.table(rows.fillna({"key_size": math.nan}), [*axes, "key_size", "condition"], "accuracy")
    return found[["model", "state", "pairs", "key_size", "mean", "low", "high", "runs", "condition"]]


def _key_size(row: pd.Series) -> float:
    """Returns the size of the keys of a memory that is a matrix; attention has a row for each token instead."""
    if "Transformer" in row["model"]:
        return math.nan
    value = row.get(f"binding_{row['model']}.key_size")
    return float(value) if isinstance(value, str) and value.isdigit() else math.nan


@registry.register_comparison(8, "", most=0)
def draw(study: Study) -> Chart:
    """Draws accuracy against pairs, against pairs for each dimension of the keys, and against the state."""
    table = numbers(study)
    lacks = chart.missing({"runs of Recall that are done": len(table) > 0})
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    by_pairs, by_keys, by_state = figure.subplots(1, 3, sharey=True)
    models = sorted(set(table["model"]))
    styles = chart.line_styles(models, groups.BASELINE)
    states = table.groupby("model")["state"].unique().map(sorted)
    for (model, state), line in group_by(table, ["model", "state"]):
        style = styles[model] | {"marker": _MARKERS[models.index(model) % len(_MARKERS)]}
        if len(states[model]) > 1 and model != "Transformer":  # the larger, the fuller its line
            dash = DASHES[-1 - states[model].index(state) % len(DASHES)] if state < states[model][-1] else "-"
            style |= {"linestyle": dash}
        growing = model == "Transformer"  # its state grows with the sequence, so that it is one line
        label = model if growing else f"{model}, {state:,}"
        if not growing:
            _draw_line(by_pairs, line["pairs"], line, style, label)
        if line["key_size"].notna().all():
            _draw_line(by_keys, line["pairs"] / line["key_size"], line, style, label)
    for model, line in group_by(table[table["model"] == "Transformer"], "model"):
        _draw_line(by_pairs, line["pairs"], line, styles[model] | {"marker": "o"}, model)
    shades = chart.shades(sorted(set(table["pairs"])))
    for (pairs, model), line in group_by(table, ["pairs", "model"]):
        marker = _MARKERS[models.index(model) % len(_MARKERS)]
        by_state.plot(line["state"], line["mean"], marker=marker, color=shades[pairs], linewidth=1)
    for pairs, colour in shades.items():
        by_state.plot([], [], color=colour, label=f"{pairs:.0f} pairs")
    for axes, label in (
        (by_pairs, "pairs (log scale)"),
        (by_keys, "pairs for each dimension of the keys, N / K (log scale)"),
        (by_state, "numbers in the state, exact (log scale)"),
    ):
        axes.set_xscale("log", base=2)
        axes.set(xlabel=label, ylim=(0, 1.03))
        axes.grid(alpha=0.3)
    places = log2_axis.places_of(table["pairs"])
    by_pairs.set_xticks(list(places), [f"{pairs:.0f}" for pairs in places])
    by_pairs.set_ylabel("accuracy at asked positions")
    by_keys.axvline(1, color="0.4", linestyle=":", linewidth=1)
    by_state.legend(frameon=False, fontsize="small")
    handles, labels = by_pairs.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small", title="model, state")
    caption = (
        "Accuracy on the pairs asked for, of unseen tasks, after the last step. Middle: models with a matrix for each "
        "head, whose keys have K dimensions; dotted, N = K: a linear memory holds at most K keys that do not disturb "
        "each other. Markers are models, here and on the right, where colours are numbers of pairs. Of several "
        f"settings, such as learning rates, the one with the lowest last training loss is drawn. {intervals.WORDS}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table)


def _draw_line(axes: Axes, x: pd.Series, line: pd.DataFrame, style: dict, label: str) -> None:
    axes.plot(x, line["mean"], linewidth=1.3, markersize=5, label=label, **style)
    axes.fill_between(x, line["low"], line["high"], color=style["color"], alpha=0.12, linewidth=0)
