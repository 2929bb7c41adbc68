"""All settings of a study in one picture: which left their plateau, and what they learn within a sequence."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data import groups, runs
from gpicl_flax.analysis.data.curves import BY_POSITION, ERROR
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals, survival

_NAME, _TITLE = "settings_compared", "All settings in one picture"
_MOST_DATASETS, _MOST = 3, 24
_LOSS, _TEST = "training loss", "meta-test"


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each base dataset, setting, quantity and x.

    A quantity is the training loss, averaged over about 200 steps, where x is the step; or the meta-test on unseen
    tasks of that dataset, where x is the position: an accuracy, or for numbers a squared error. Further columns: mean,
    low, high, runs, and left: the median step at which the plateau was left, infinite if most runs did not leave it.
    """
    table = study.table.dropna(subset=["model"])
    rule = groups.rule_of(table)
    table = table.assign(condition=groups.conditions(table, ["base_dataset"]))
    # Divided once, because the losses of thousands of runs are long, and there may be hundreds of settings.
    of_run = dict(group_by(study.losses, "run_id", sort=False))
    parts = []
    for (dataset, condition), same in group_by(table, ["base_dataset", "condition"], sort=False):
        own = [of_run[run_id] for run_id in same["run_id"] if run_id in of_run]
        losses = pd.concat(own or [study.losses[:0]]).rename(columns={"step": "x", "loss_ema": "value"})
        found = intervals.table(losses.assign(quantity=_LOSS), ["quantity", "x"], "value")
        found = pd.concat([found, _tested(same, study.curves, dataset)], ignore_index=True)
        known = rule.known(same)
        left = survival.median(rule.lengths(known)).steps if len(known) else float("nan")
        parts.append(found.assign(base_dataset=dataset, setting=condition or "all runs", left=left))
    columns = ["base_dataset", "setting", "quantity", "x", "mean", "low", "high", "runs", "left"]
    if not parts:
        return pd.DataFrame(columns=columns)
    # A setting without a meta-test would leave columns of objects, which cannot be drawn.
    return pd.concat(parts, ignore_index=True)[columns].astype(dict.fromkeys(["x", "mean", "low", "high"], float))


def _tested(same: pd.DataFrame, curves: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Returns the last meta-test of runs that differ in their seeds, a row for each position."""
    tested = curves[(curves["tasks"] == "unseen") & (curves["test_dataset"] == dataset)]
    tested = same[["run_id"]].merge(tested, on="run_id")
    names = BY_POSITION if tested[BY_POSITION[0]].notna().all() else ERROR
    own = ["value", "value_low", "value_high"]
    long = tested[["positions", *names]].explode(["positions", *names]).astype(float)
    long = long.set_axis(["x", *own], axis="columns").assign(quantity=_TEST)
    return intervals.table(long, ["quantity", "x"], "value")


@registry.register_comparison(0.5, "", most=0)
def draw(study: Study) -> Chart:
    """Draws a row for each base dataset: the training losses, and the curves of the meta-test."""
    table = numbers(study)
    kinds, more_datasets = chart.first(list(group_by(table, "base_dataset", sort=False)), _MOST_DATASETS, "datasets")
    largest = max((rows["setting"].nunique() for _, rows in kinds), default=0)
    lacks = chart.missing({"runs of several settings": largest > 1})
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    figure = Figure(figsize=(13, 4.4 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 2, squeeze=False)
    more = ""
    for (losses, tests), (dataset, rows) in zip(grid, kinds, strict=True):
        # The best come first, here and in the legend.
        last = rows[rows["quantity"] == _LOSS].groupby("setting", sort=False)["mean"].last().sort_values()
        names, more = chart.first(list(last.index), _MOST, "settings")
        styles = chart.line_styles(names, groups.BASELINE)
        for name in names:
            _draw_setting(losses, tests, rows[rows["setting"] == name], styles[name])
        _finish(losses, tests, dataset, study)
    caption = (
        "Left: the training loss, averaged over about 200 steps, with a circle where the plateau was left by the "
        f"{groups.rule_of(study.table).words}. Right: the last meta-test on unseen tasks of the same dataset. Settings "
        f"are in the order of their last losses. {intervals.WORDS}{more}{more_datasets}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table)


def _draw_setting(losses: Axes, tests: Axes, rows: pd.DataFrame, style: dict) -> None:
    for axes, quantity in ((losses, _LOSS), (tests, _TEST)):
        curve = rows[rows["quantity"] == quantity]
        axes.plot(curve["x"], curve["mean"], linewidth=1.4, label=rows["setting"].iloc[0], **style)
        if quantity == _TEST:
            axes.fill_between(curve["x"], curve["low"], curve["high"], color=style["color"], alpha=0.1, linewidth=0)
    curve = rows[rows["quantity"] == _LOSS]
    after = curve[curve["x"] >= rows["left"].iloc[0]]
    if len(after):
        at = after.iloc[0]
        losses.plot(at["x"], at["mean"], "o", markerfacecolor="white", markeredgecolor=style["color"], zorder=3)


def _finish(losses: Axes, tests: Axes, dataset: str, study: Study) -> None:
    criteria = runs.criteria(study.table[study.table["base_dataset"] == dataset].iloc[0])
    if criteria:
        losses.axhline(criteria.chance_loss, color="0.4", linestyle=":")
        tests.axhline(criteria.chance_score, color="0.4", linestyle=":", label="chance")
    losses.set(xlabel="training step", ylabel=f"training loss: {chart.loss_in_words(criteria)}", title=dataset)
    tests.set(xlabel="examples seen in the sequence", title=f"unseen tasks, {dataset}")
    tests.set_ylabel("squared error" if criteria and criteria.score != "accuracy" else "accuracy")
    if criteria and criteria.score == "accuracy":
        tests.set_ylim(0, 1)
    for axes in (losses, tests):
        chart.count_ticks(axes)
        axes.grid(alpha=0.3)
    tests.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize="small")
