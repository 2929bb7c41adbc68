"""Fig 14: the last prediction of longer and shorter sequences."""

from collections.abc import Sequence

import pandas as pd

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 14", "sequence_length", "Accuracy of the last prediction by sequence length"
_MOST = 4


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each base_dataset trained on, condition, test_dataset, tasks and sequence_length.

    Further columns: mean, low and high of the accuracy of the last prediction, runs. There are seen tasks only for the
    base dataset trained on.
    """
    rows = study.final().dropna(subset=["sequence_length"])
    rows = rows[(rows["tasks"] == "unseen") | (rows["test_dataset"] == rows["base_dataset"])]
    axes = ["base_dataset", "test_dataset", "tasks", "sequence_length"]
    rows = rows.assign(condition=conditions(rows, axes))
    return intervals.table(rows, ["base_dataset", "condition", *axes[1:]], "last")


@registry.register_paper_figure(14)
def draw(study: Study) -> Chart:
    """Draws a panel for each base dataset trained on and condition."""
    table = numbers(study)
    kinds = group_by(table, ["base_dataset", "condition"])
    kinds = [(key, rows) for key, rows in kinds if rows["sequence_length"].nunique() > 1]
    lacks = chart.missing({"runs that are done, alike but for at least two sequence lengths": bool(kinds)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "settings")
    datasets = sorted(table["test_dataset"].unique())
    figure, grid = chart.panels(len(kinds), columns=2, size=(5.6, 3.6), sharey=True)
    for axes, ((base, condition), rows) in zip(grid, kinds, strict=True):
        places = log2_axis.places_of(rows["sequence_length"])
        for (tested, tasks), line in group_by(rows, ["test_dataset", "tasks"]):
            errors = (line["mean"] - line["low"], line["high"] - line["mean"])
            style = chart.test_style(tested, tasks, datasets)
            axes.errorbar(line["sequence_length"].map(places), line["mean"], errors, capsize=3, linewidth=1.5, **style)
        log2_axis.name(axes.xaxis, places, powers=False)
        axes.set(xlabel="sequence length (examples, log scale)", ylim=(0, 1))
        chart.title(axes, f"trained on {base}", condition)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("accuracy of the last prediction")
    chart.legend(figure, columns=2 if len(kinds) == 1 else 4)
    caption = f"Runs are meta-trained and meta-tested on sequences of the same length. {intervals.WORDS}{more}"
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, {"accuracy_by_sequence_length": _ours(kinds)})


def _ours(kinds: Sequence) -> str:
    """Returns the accuracy on unseen tasks of the base dataset trained on, from shortest to longest sequences."""
    (base, _), rows = kinds[0]
    own = rows[(rows["test_dataset"] == base) & (rows["tasks"] == "unseen")].sort_values("sequence_length")
    steps = [f"{row['mean']:.1%} ({int(row['sequence_length'])})" for _, row in own.iterrows()]
    return f"unseen tasks, {base}: {', '.join(steps)}" if steps else "not known"
