"""Fig 3: learning within a sequence, on the base dataset trained on and on others."""

from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals

_PAPER, _NAME, _TITLE = "Figure 3", "within_sequence", "Accuracy against the examples seen"
_MOST = 6


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each base_dataset trained on, condition, test_dataset, tasks and position.

    A position is the number of examples seen before, from 0. Further columns: mean, low, high, runs.

    There are seen tasks only for the base dataset trained on. Conditions with more tasks come first. Runs that have not
    ended count with their last meta-test, as a separate condition.
    """
    runs = study.tested()
    condition = conditions(runs, ["base_dataset"])
    runs = runs.assign(
        condition=[", ".join(filter(None, both)) for both in zip(condition, runs["progress"], strict=True)]
    )
    rows = runs[["run_id", "base_dataset", "condition", "num_tasks"]].merge(
        study.curves.dropna(subset=["accuracy"]), on="run_id"
    )
    rows = rows[(rows["tasks"] == "unseen") | (rows["test_dataset"] == rows["base_dataset"])]
    parts = []
    for (base, condition), same in _most_tasks_first(rows):
        for (tested, tasks), curves in group_by(same, ["test_dataset", "tasks"]):
            ends = [np.stack(list(curves[name])) for name in ("accuracy", "accuracy_low", "accuracy_high")]
            mean, low, high = intervals.of_runs_or_sequences(*ends)
            part = {"base_dataset": base, "condition": condition, "test_dataset": tested, "tasks": tasks}
            parts.append(
                pd.DataFrame(
                    part | {"position": range(len(mean)), "mean": mean, "low": low, "high": high, "runs": len(curves)}
                )
            )
    columns = ["base_dataset", "condition", "test_dataset", "tasks", "position", "mean", "low", "high", "runs"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _most_tasks_first(rows: pd.DataFrame) -> list:
    parts = group_by(rows, ["base_dataset", "condition"])
    return sorted(parts, key=lambda item: (-item[1]["num_tasks"].max(), *map(groups.natural, item[0])))


@registry.register_paper_figure(3)
def draw(study: Study) -> Chart:
    """Draws a panel for each base dataset trained on, with a curve for each tested on."""
    table = numbers(study)
    lacks = chart.missing(
        {"runs that were meta-tested on sequences of at least two examples": bool((table["position"] > 0).any())}
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    kinds, more = chart.first(group_by(table, ["base_dataset", "condition"], sort=False), _MOST, "panels")
    datasets = sorted(table["test_dataset"].unique())
    chance = _chance(study)
    figure, grid = chart.panels(len(kinds), sharey=True)
    for axes, ((base, condition), rows) in zip(grid, kinds, strict=True):
        for (tested, tasks), curve in group_by(rows, ["test_dataset", "tasks"]):
            style: dict[str, Any] = chart.test_style(tested, tasks, datasets) | {"marker": None}
            axes.plot(curve["position"], curve["mean"], linewidth=1.8, **style)
            axes.fill_between(
                curve["position"], curve["low"], curve["high"], color=style["color"], alpha=0.2, linewidth=0
            )
        if chance is not None:
            axes.axhline(chance, color="0.4", linestyle=":", label="chance")
        axes.set(xlabel="examples seen in the sequence", ylim=(0, 1))
        chart.count_ticks(axes)
        chart.title(axes, f"trained on {base}", condition)
        axes.grid(alpha=0.3)
        if chart.spec_of(axes).is_first_col():
            axes.set_ylabel("accuracy")
    chart.legend(figure, columns=min(2 * len(kinds), 4))
    caption = f"Accuracy at every position of sequences of test examples. {intervals.WORDS}{more}"
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER)


def _chance(study: Study) -> float | None:
    """Returns the accuracy of guessing, if all runs have the same number of classes."""
    classes = study.tested()["num_classes"].dropna().unique()
    return 1 / classes[0] if len(classes) == 1 else None
