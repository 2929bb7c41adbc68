"""Fig 21: the training loss of VSML by its layers, the number of tasks and the fraction of permuted labels."""

import math

import pandas as pd

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import COLOURS, DASHES, Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 21", "vsml_layers", "Training loss of VSML by its number of layers"
_AXES = ["num_tasks", "num_layers", "permute_labels_prob"]
_MOST = 4


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition, num_tasks (inf: unbounded), num_layers, permute_labels_prob and step.

    Further columns: mean, low and high of the average of the training loss in nats, and runs, which count for as long
    as they have a loss.
    """
    runs = study.table[study.table["model"] == "VSML"].dropna(subset=["num_classes", *_AXES])
    runs = runs.assign(condition=conditions(runs, _AXES))[["run_id", "condition", *_AXES]]
    return intervals.table(runs.merge(study.losses, on="run_id"), ["condition", *_AXES, "step"], "loss_ema")


@registry.register_paper_figure(21)
def draw(study: Study) -> Chart:
    """Draws a row of panels for each number of tasks, a column for each number of layers.

    Each panel has a line for each fraction of permuted labels.
    """
    table = numbers(study)
    layers, shares = (sorted(table[name].unique()) for name in ("num_layers", "permute_labels_prob"))
    lacks = chart.missing({"runs of VSML with at least two numbers of layers (VSML.num_layers)": len(layers) > 1})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(group_by(table, ["num_tasks", "condition"]), _MOST, "rows")
    figure, grid = chart.panels(
        len(kinds) * len(layers), columns=len(layers), size=(3.2, 2.7), sharex=True, sharey=True
    )
    chance = math.log(study.table["num_classes"].dropna().iloc[0])
    for place, axes in enumerate(grid):
        (num_tasks, condition), rows = kinds[place // len(layers)]
        depth = layers[place % len(layers)]
        for share, line in group_by(rows[rows["num_layers"] == depth], "permute_labels_prob"):
            look = shares.index(share)
            style = {"color": COLOURS[look % len(COLOURS)], "linestyle": DASHES[look % len(DASHES)]}
            axes.plot(line["step"], line["mean"], linewidth=1.6, label=f"{share:.0%} of tasks permute labels", **style)
            axes.fill_between(line["step"], line["low"], line["high"], color=style["color"], alpha=0.15, linewidth=0)
        axes.axhline(chance, color="0.4", linestyle=":", label="chance")
        tasks = f"{log2_axis.text(num_tasks)} {'task' if num_tasks == 1 else 'tasks'}"
        title = f"{tasks}, {groups.number(depth)} {'layer' if depth == 1 else 'layers'}"
        chart.title(axes, title, condition)
        axes.grid(alpha=0.3)
        chart.count_ticks(axes)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("training loss (nats)")
        if chart.spec_of(axes).is_last_row():
            axes.set_xlabel("training step")
    chart.legend(figure)
    caption = f"The average of the training loss over about 200 steps. {intervals.WORDS} Dotted: chance.{more}"
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)
