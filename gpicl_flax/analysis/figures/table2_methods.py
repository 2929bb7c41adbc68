"""Table 2: the last prediction by method and base dataset, beside the published values."""

import math

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import published
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import BLACK, COLOURS, Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Table 2", "methods", "Accuracy of the last prediction by method and base dataset"
_TRAINED_ON = "mnist"  # in Table 2
_MOST = 12


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each base_dataset trained on, model and test_dataset.

    Further columns: mean, low and high of the accuracy of the last prediction on unseen tasks, runs, their condition,
    and the published value, NaN where there is none.

    If a model has several conditions, the row is that of the best on the base dataset trained on, as methods were tuned
    in the paper.
    """
    rows = study.final()
    rows = rows[rows["tasks"] == "unseen"]
    axes = ["base_dataset", "model", "test_dataset"]
    rows = rows.assign(condition=conditions(rows, axes))
    table = intervals.table(rows, [*axes, "condition"], "last")
    own = table[table["base_dataset"] == table["test_dataset"]]
    best = own.sort_values("mean", ascending=False).drop_duplicates(["base_dataset", "model"])
    table = table.merge(best[["base_dataset", "model", "condition"]])
    trained_alike = table["base_dataset"] == _TRAINED_ON
    values = [published.table_2(*pair) for pair in zip(table["model"], table["test_dataset"], strict=True)]
    return table.assign(published=np.where(trained_alike, values, math.nan))


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Returns `numbers` in the layout of Table 2: a row for each method, a column for each base dataset tested on."""
    if table.empty:
        return pd.DataFrame()
    words = [
        f"{row['mean']:.1%} [{max(row['low'], 0):.1%}, {min(row['high'], 1):.1%}]"
        + (f" ({row['published']:.2%})" if row["published"] == row["published"] else "")
        for _, row in table.iterrows()
    ]
    cells = table.assign(words=words).pivot(index=["base_dataset", "model"], columns="test_dataset", values="words")
    return cells.fillna("").rename_axis(columns=None).reset_index().rename(columns={"base_dataset": "trained on"})


@registry.register_paper_figure(3.5)
def draw(study: Study) -> Chart:
    """Draws a panel for each pair of base datasets trained on and tested on, a row for each method."""
    table = numbers(study)
    lacks = chart.missing(
        {
            "runs that are done, of at least two models or of one in Table 2 trained on mnist, meta-tested on unseen "
            "tasks": (bool(table["model"].nunique() > 1 or table["published"].notna().any()))
        }
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    order = [*published.TABLE_2.columns, *sorted(set(table["test_dataset"]) - set(published.TABLE_2.columns))]
    kinds = sorted(group_by(table, ["base_dataset", "test_dataset"]), key=lambda x: (x[0][0], order.index(x[0][1])))
    kinds, more = chart.first(kinds, _MOST, "panels")
    models = list(dict.fromkeys([*(x for x in published.TABLE_2.index if x in set(table["model"])), *table["model"]]))
    figure, grid = chart.panels(len(kinds), size=(3.7, 0.36 * len(models) + 1.1), sharex=True)
    for axes, ((base, tested), rows) in zip(grid, kinds, strict=True):
        chart.name_rows(axes, models if chart.spec_of(axes).is_first_col() else [""] * len(models))
        for _, row in rows.iterrows():
            at = models.index(row["model"])
            axes.plot([row["low"], row["high"]], [at, at], color=COLOURS[0], linewidth=1.6)
            axes.plot(row["mean"], at, "o", color=COLOURS[0], markersize=6, linestyle="none", label="these runs")
            if math.isfinite(row["published"]):
                style = {"color": BLACK, "markerfacecolor": "none", "markersize": 8, "linestyle": "none"}
                axes.plot(row["published"], at, "D", label="published", **style)
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(
            f"{tested}\n(trained on {base})" if base != tested else f"{tested}\n(trained on it)", fontsize="medium"
        )
    for axes in grid[-3:]:
        axes.set_xlabel("accuracy of the last prediction")
        axes.tick_params(labelbottom=True)
    chart.legend(figure)
    caption = (
        f"Accuracy of the last prediction on unseen tasks. {intervals.WORDS} Of a model with several settings, the one "
        "that is best on the base dataset trained on is shown; the numbers name it. A published value stands beside "
        f"runs trained on mnist, whatever else their settings are; it rests on {published.TABLE_2_PREDICTIONS} "
        f"predictions, so that its own standard error is up to 1.8 points.{more}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)
