"""The cost of a shorter plateau: the accuracy that interventions reach on unseen tasks and datasets."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE, BY_TRAINING_LOSS, BY_UNSEEN_TASKS, Rule, by_panel
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.analysis.stats import intervals
from gpicl_flax.records.run_folder import DONE

_SHARE = 4  # by default, accuracies are compared a quarter of all steps after the drop
_NAMED = 6  # runs that a caption names

TOTAL, AFTER_DROP = "total", "after the drop"
_LOOKS = {
    TOTAL: {"marker": "o", "color": COLOURS[0], "shift": -0.17, "line": "-"},
    AFTER_DROP: {"marker": "D", "color": COLOURS[1], "shift": 0.17, "line": "--"},
}
_TESTS = {"unseen_tasks": "unseen tasks", "unseen_datasets": "unseen datasets"}


def numbers(study: Study, after_drop: int | None = None) -> pd.DataFrame:
    """Returns a row for each run and each way to compare, with its accuracies at the last position.

    Columns: panel, intervention, run_id, at, step, steps_after_drop (missing for a run on its plateau), unseen_tasks
    (of the base dataset trained on), unseen_datasets (unseen tasks of the other base datasets, the mean over these). A
    run without such an evaluation has a row without numbers.

    The column `at` has the two ways:
      total: at the last step that the interventions of the panel have in common (see `_common_step`).
      after the drop: at the first evaluation `after_drop` steps or more after the run left its plateau, by `rule_of`.
    """
    rule = rule_of(study)
    accuracies = _accuracies(study)
    by_run = dict(group_by(accuracies, "run_id", sort=False))
    after_drop = steps_after_drop(study) if after_drop is None else after_drop
    rows = []
    for panel, runs in by_panel(study.table):
        total = _common_step(runs, accuracies)
        for _, run in runs.iterrows():
            own = by_run.get(run["run_id"], accuracies[:0]).set_index("step").sort_index()
            has_left = pd.notna(run[rule.left]) and bool(run[rule.left])
            drop = run[rule.steps] if has_left else np.nan
            later = own.index[own.index >= drop + after_drop]
            for at, found in ((TOTAL, own.index[own.index == total]), (AFTER_DROP, later)):
                row = {"panel": panel, "intervention": run["intervention"], "run_id": run["run_id"], "at": at}
                if len(found):
                    row |= {"step": found[0], "steps_after_drop": found[0] - drop}
                    row |= own.loc[found[0], list(_TESTS)].to_dict()
                rows.append(row)
    columns = ["panel", "intervention", "run_id", "at", "step", "steps_after_drop", *_TESTS]
    return pd.DataFrame(rows, columns=columns)


def _common_step(runs: pd.DataFrame, accuracies: pd.DataFrame) -> float:
    """Returns the last step at which at least half of the runs of every intervention have been evaluated.

    Returns NaN if there is none. Runs that are not done do not count, unless none is done. Interventions without an
    evaluation do not count either.
    """
    done = runs[runs["ended"] == DONE]
    done = done if len(done) else runs
    evaluated = accuracies.merge(done[["run_id", "intervention"]], on="run_id")
    evaluated = evaluated.groupby(["step", "intervention"]).size().unstack(fill_value=0)
    by_all = (evaluated >= done["intervention"].value_counts()[evaluated.columns] / 2).all(axis=1)
    return by_all.index[by_all].max()


def rule_of(study: Study) -> Rule:
    """Returns the rule for the drop: the loss on unseen tasks if all runs have it, otherwise that of training."""
    by_unseen_tasks = BY_UNSEEN_TASKS.known(study.table)
    told = BY_TRAINING_LOSS.known(study.table).index
    return BY_UNSEEN_TASKS if len(by_unseen_tasks) and told.isin(by_unseen_tasks.index).all() else BY_TRAINING_LOSS


def steps_after_drop(study: Study) -> int:
    """Returns how many steps after the drop runs are compared by default.

    It is a quarter of the steps of the intervention with the shortest runs, by their settings, so that these can be
    compared as well.
    """
    longest = study.table.groupby("intervention")["steps"].max()
    return int(longest.min()) // _SHARE if longest.notna().any() else 0


def _accuracies(study: Study) -> pd.DataFrame:
    """Returns run_id, step, and the accuracies of `_TESTS` for each evaluation."""
    unseen = study.evaluations[study.evaluations["tasks"] == "unseen"]
    unseen = unseen.merge(study.table[["run_id", "base_dataset"]], on="run_id", suffixes=("", "_trained"))
    is_own = unseen["base_dataset"] == unseen["base_dataset_trained"]
    means = [part.groupby(["run_id", "step"])["last"].mean() for part in (unseen[is_own], unseen[~is_own])]
    return pd.concat(means, axis=1, keys=list(_TESTS)).reset_index()


def draw(study: Study, after_drop: int | None = None) -> Chart:
    """Draws accuracies by intervention.

    There is a row of panels for each setting, a column for unseen tasks and one for unseen datasets.
    """
    name, title = "cost", "Accuracy by intervention, at equal total steps and equally long after the drop"
    table = numbers(study, after_drop)
    tests = [test for test in _TESTS if table[test].notna().any()]
    if not tests:
        return Chart(name, title, "No run has an evaluation on unseen tasks.")
    panels = group_by(table, "panel")
    names = {panel: [x for x in study.interventions if x in set(rows["intervention"])] for panel, rows in panels}
    heights = [0.34 * len(names[panel]) + 0.75 for panel, _ in panels]
    figure = Figure(figsize=(1.8 + 4.3 * len(tests), sum(heights) + 0.9), layout="constrained")
    grid = figure.subplots(len(panels), len(tests), squeeze=False, height_ratios=heights, sharex="col")
    handles = {}
    for row, (panel, rows) in zip(grid, panels, strict=True):
        for axes, test in zip(row, tests, strict=True):
            chart.name_rows(axes, names[panel] if test == tests[0] else [""] * len(names[panel]))
            axes.set_title(f"{panel}: {_TESTS[test]}", fontsize="medium")
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            for at, look in _LOOKS.items():
                for place, intervention in enumerate(names[panel]):
                    chosen = rows[(rows["intervention"] == intervention) & (rows["at"] == at)]
                    _draw_group(axes, place, chosen[test].dropna().to_numpy(float), look, handles, at)
                paper = rows[(rows["intervention"] == BASELINE) & (rows["at"] == at)][test].mean()
                if np.isfinite(paper):
                    axes.axvline(paper, color=look["color"], linestyle=look["line"], linewidth=0.9, alpha=0.8, zorder=1)
    for axes in grid[-1]:
        axes.set_xlabel("accuracy at the last position")
    wait = steps_after_drop(study) if after_drop is None else after_drop
    words = {TOTAL: "same total of steps", AFTER_DROP: f"{wait:,} steps after the drop"}
    figure.legend(
        [handles[at] for at in handles],
        [words[at] for at in handles],
        loc="outside upper center",
        frameon=False,
        ncols=2,
    )
    return Chart(name, title, _caption(study, table, wait), figure, table)


def _draw_group(axes: Axes, place: int, values: np.ndarray, look: dict, handles: dict, at: str) -> None:
    """Draws the runs of a group as dots, and their mean with Student's 95% interval."""
    if not len(values):
        return
    height, colour = place + look["shift"], look["color"]
    axes.plot(values, np.full(len(values), height), "o", color=colour, markersize=3.5, alpha=0.4, markeredgewidth=0)
    mean = values.mean()
    if len(values) > 1:
        _, low, high = intervals.of_runs(values)
        axes.plot([max(float(low), 0), min(float(high), 1)], [height, height], "-", color=colour, linewidth=1.3)
    (handles[at],) = axes.plot(
        mean, height, look["marker"], color=colour, markersize=5.5, markerfacecolor=colour if at == TOTAL else "white"
    )


def _caption(study: Study, table: pd.DataFrame, wait: int) -> str:
    totals = sorted({f"{int(step):,}" for step in table[table["at"] == TOTAL]["step"].dropna()})
    after = table[table["at"] == AFTER_DROP]
    text = (
        "Accuracy at the last position of sequences of unseen tasks, made from the base dataset trained on or from the "
        "others (the mean over these): means over runs with Student's 95% intervals, runs as dots. Circles: after the "
        f"same total of steps ({' or '.join(totals) or 'none'}), however long the plateau was. Diamonds: at each run's "
        f"first evaluation at least {wait:,} steps after it left its plateau, told by its {rule_of(study).words}"
    )
    if after["steps_after_drop"].notna().any():
        text += f" (these come up to {int(after['steps_after_drop'].max()):,} steps after)"
    text += f". The vertical lines are the means of '{BASELINE}'."
    for words, rows in (
        ("at the common total", table[table["at"] == TOTAL]),
        ("that long after a drop, or without a drop", after),
    ):
        missing = rows[rows["step"].isna()]["run_id"].tolist()
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            text += f" Without an evaluation {words}: {', '.join(missing[:_NAMED])}{more}."
    return text


@registry.register_comparison(3, "panel", most=4)
def _draw_at_its_steps(study: Study) -> Chart:
    return draw(study, study.after_drop)
