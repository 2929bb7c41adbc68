"""Fig 20: losses over a long training, by number of tasks and weight decay: do memorised solutions become general?"""

import math

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, fig07_loss_over_steps, log2_axis, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 20", "weight_decay", "Losses over the training, by number of tasks and weight decay"
_AXES = ["num_tasks", "weight_decay"]
_MOST = 5


@registry.register_paper_figure(20)
def draw(study: Study) -> Chart:
    """Draws a row of panels for each number of tasks, a column for each weight decay."""
    table = fig07_loss_over_steps.numbers(study, _AXES)
    decays = sorted(table["weight_decay"].unique())
    lacks = chart.missing({"runs with at least two weight decays (adamw.weight_decay)": len(decays) > 1})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(group_by(table, ["num_tasks", "condition"]), _MOST, "rows")
    chance = math.log(study.table["num_classes"].dropna().iloc[0])
    datasets = sorted(set(table["test_dataset"]) - {""})
    figure, grid = chart.panels(
        len(kinds) * len(decays), columns=len(decays), size=(3.9, 2.8), sharex=True, sharey=True
    )
    for place, axes in enumerate(grid):
        (num_tasks, condition), rows = kinds[place // len(decays)]
        decay = decays[place % len(decays)]
        fig07_loss_over_steps.draw_losses(axes, rows[rows["weight_decay"] == decay], datasets, chance)
        title = f"{log2_axis.text(num_tasks)} tasks, weight decay {decay:g}"
        chart.title(axes, title, condition)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("cross entropy (nats)")
        if chart.spec_of(axes).is_last_row():
            axes.set_xlabel("training step")
    chart.legend(figure)
    caption = (
        f"{intervals.WORDS} Training: the average of its loss over about 200 steps. Meta-tests: the mean over all "
        "positions. Grokking would be a loss on unseen tasks that falls long after the training loss has. Dotted: "
        "chance." + more
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)
