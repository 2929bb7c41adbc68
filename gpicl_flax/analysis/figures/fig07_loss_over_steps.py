"""Fig 7 and 9: losses of training and of meta-tests while a run trains, with a close view of the plateau."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions, rule_of
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import BLACK, Chart
from gpicl_flax.analysis.stats import intervals, survival

_PAPER, _NAME, _TITLE = "Figures 7, 9", "loss_over_steps", "Losses over the training"
_ZOOM = (2.25 - math.log(10), 2.40 - math.log(10))  # the range around chance
_MOST = 4
TRAINING = "training"


def numbers(study: Study, axes: Sequence[str] = ()) -> pd.DataFrame:
    """Returns a row for each value of the columns `axes`, condition, test_dataset, tasks and step.

    Further columns: mean, low and high of the loss in nats, runs.

    The training loss has the tasks 'training' and the test_dataset ''; it is its average over about 200 steps. The loss
    of meta-tests is the mean over positions. There are seen tasks only for the base dataset trained on. Runs count for
    as long as they have a loss, including those that diverged or have not ended.
    """
    runs = study.table.dropna(subset=["model", "num_classes", *axes])
    runs = runs.assign(condition=conditions(runs, axes))
    runs = runs[["run_id", *axes, "condition", "base_dataset"]]
    runs = runs.loc[:, ~runs.columns.duplicated()]
    tested = study.evaluations.rename(columns={"base_dataset": "test_dataset"})
    tested = runs.merge(tested, on="run_id")
    tested = tested[(tested["tasks"] == "unseen") | (tested["test_dataset"] == tested["base_dataset"])]
    trained = runs.merge(study.losses, on="run_id").rename(columns={"loss_ema": "loss"})
    rows = pd.concat([trained.assign(tasks=TRAINING, test_dataset=""), tested], ignore_index=True)
    return intervals.table(rows, [*axes, "condition", "test_dataset", "tasks", "step"], "loss")


@registry.register_paper_figure(7)
def draw(study: Study) -> Chart:
    """Draws a row of two panels for each condition: the complete losses, and the losses near chance."""
    table = numbers(study)
    tested = table[table["tasks"] != TRAINING].groupby("condition")["step"].nunique()
    kinds = [(key, rows) for key, rows in group_by(table, "condition") if tested.get(key, 0) > 1]
    lacks = chart.missing({"meta-tests with losses along the training (MetaTest.at_checkpoints = True)": bool(kinds)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(kinds, _MOST, "settings")
    classes = study.table["num_classes"].dropna()
    chance = math.log(classes.iloc[0])
    datasets = sorted(set(table["test_dataset"]) - {""})
    figure, grid = chart.panels(2 * len(kinds), columns=2, size=(5.2, 3.1), sharex=True)
    for whole, zoom, (condition, rows) in zip(grid[::2], grid[1::2], kinds, strict=True):
        for axes in (whole, zoom):
            draw_losses(axes, rows, datasets, chance)
        zoom.set_ylim(chance + _ZOOM[0], chance + _ZOOM[1])
        whole.set_title(condition or "all runs", fontsize="medium")
        zoom.set_title("the plateau, near chance", fontsize="medium")
        whole.set_ylabel("cross entropy (nats)")
    for axes in grid[-2:]:
        axes.set_xlabel("training step")
    chart.legend(figure)
    caption = (
        f"{intervals.WORDS} Training: the average of its loss over about 200 steps. Meta-tests: the mean over all "
        f"positions of sequences of test examples. Dotted: chance. Right: the same from {chance + _ZOOM[0]:.2f} to "
        f"{chance + _ZOOM[1]:.2f} nats." + more
    )
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, {"plateau_steps": _plateau(study)})


def draw_losses(axes: Axes, rows: pd.DataFrame, datasets: Sequence[str], chance: float) -> None:
    """Draws the curves of one condition of `numbers`."""
    for (tested, tasks), curve in group_by(rows, ["test_dataset", "tasks"]):
        style: dict[str, Any] = {"color": BLACK, "label": "training"}
        if tasks != TRAINING:
            style = chart.test_style(tested, tasks, datasets) | {"markersize": 3 if len(curve) < 40 else 0}
        axes.plot(curve["step"], curve["mean"], linewidth=1.5, **style)
        axes.fill_between(curve["step"], curve["low"], curve["high"], color=style["color"], alpha=0.15, linewidth=0)
    axes.axhline(chance, color="0.4", linestyle=":", label="chance")
    chart.count_ticks(axes)
    axes.grid(alpha=0.3)


def _plateau(study: Study) -> str:
    """Returns the median length of the plateau of each setting, in words.

    It uses runs without bias, as in Fig 7, and the loss on unseen tasks where it was measured, because the training
    loss falls earlier, when its tasks are memorised.
    """
    runs = study.table.dropna(subset=["model"]).query("permute_labels_prob == 1")
    rule = rule_of(runs)
    known = rule.known(runs)
    parts = [survival.median(rule.lengths(same)) for _, same in group_by(known, conditions(known, ()))]
    steps = sorted(part.steps for part in parts)
    if not steps:
        return "not known"
    low, high = (
        f"{x:,.0f}" if math.isfinite(x) else f"more than {max(p.budget for p in parts):,.0f}"
        for x in (steps[0], steps[-1])
    )
    length = f"{low} steps" if low == high else f"{low} to {high} steps, by setting"
    return f"{length}, by the {rule.words}"
