"""Fig 10: the last prediction on several base datasets, from raw pixels and from frozen features of an encoder."""

from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.hyperparameters import FEATURES, PIXELS
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 10", "pretrained_features", "Accuracy from raw pixels and from frozen features"
_MOST = 3
_LOOKS: dict[str, dict[str, Any]] = {
    PIXELS: {"color": COLOURS[0], "marker": "o"},
    FEATURES: {"color": COLOURS[1], "marker": "D"},
}


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition, images that were tested on, and inputs.

    Further columns: mean, low and high of the accuracy of the last prediction on unseen tasks, runs.

    The features of 'mnist' are assumed to have the name 'mnist_ENCODER', which `gpicl datasets embed` gives them.
    """
    rows = study.final().dropna(subset=["inputs"])
    rows = rows[rows["tasks"] == "unseen"]
    raw = sorted(set(rows[rows["inputs"] == PIXELS]["test_dataset"]), key=len, reverse=True)
    images = [
        next((name for name in raw if kind == FEATURES and tested.startswith(f"{name}_")), tested)
        for tested, kind in zip(rows["test_dataset"], rows["inputs"], strict=True)
    ]
    rows = rows.assign(images=images, condition=conditions(rows, ["inputs", "test_dataset"]))
    return intervals.table(rows, ["condition", "images", "inputs"], "last")


@registry.register_paper_figure(10)
def draw(study: Study) -> Chart:
    """Draws a panel for each condition."""
    table = numbers(study)
    kinds = [(key, rows) for key, rows in group_by(table, "condition") if rows["inputs"].nunique() > 1]
    lacks = chart.missing(
        {"runs that are done, alike but for raw pixels and frozen features (gpicl datasets embed)": bool(kinds)}
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "settings")
    figure, grid = chart.panels(len(kinds), columns=1, size=(7.5, 3.4))
    for axes, (condition, rows) in zip(grid, kinds, strict=True):
        images = rows.groupby("images")["mean"].max().sort_values(ascending=False).index.tolist()
        for shift, (kind, look) in zip((-0.12, 0.12), _LOOKS.items(), strict=True):
            own = rows[rows["inputs"] == kind].set_index("images").reindex(images)
            errors = np.stack([own["mean"] - own["low"], own["high"] - own["mean"]])
            at = np.arange(len(images)) + shift
            axes.errorbar(at, own["mean"], errors, linestyle="none", capsize=3, markersize=7, label=kind, **look)
        axes.set_xticks(range(len(images)), images)
        axes.set(
            ylim=(0, 1.03), ylabel="accuracy of the\nlast prediction", xlabel="base dataset tested on (unseen tasks)"
        )
        axes.set_title(condition, fontsize="medium")
        axes.grid(axis="y", alpha=0.3)
    chart.legend(figure)
    caption = f"Accuracy of the last prediction on unseen tasks. {intervals.WORDS}{more}"
    cifar = table[(table["images"] == "cifar10") & (table["inputs"] == FEATURES)]["mean"].max()
    ours = {"cifar10_from_features": f"{cifar:.1%}"} if cifar == cifar else {}
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, ours)
