"""Compares state size and parameter count as predictors of accuracy.

This is the question of Fig 6 and 13 of the paper.
"""

import dataclasses
from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis.data import configurations, selections
from gpicl_flax.analysis.data.configurations import PARAMETERS, STATE_EXACT, STATE_PAPER, TEST
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.analysis.stats import predictors
from gpicl_flax.analysis.stats.predictors import Comparison, Predictor

ALL = "all architectures"
_PAPER, _NAME, _TITLE = (
    "Figures 6, 13",
    "size_predictors",
    "Does state size or parameter count predict accuracy better?",
)
_STATES = (STATE_PAPER, STATE_EXACT)
_LOOKS = {
    STATE_PAPER: ("o", COLOURS[0], "state size (as the paper counts)"),
    STATE_EXACT: ("D", COLOURS[5], "state size (all numbers kept)"),
    PARAMETERS: ("s", COLOURS[1], "parameter count"),
}
_MEASURES = [field.name for field in dataclasses.fields(Predictor)]
_MOST = 6  # tests that are drawn
_LEAST = -0.5  # the lower end of the R2 axis; predictions there are worse than the mean


def compare(study: Study, wanted: Callable[[dict], bool] = lambda compared: True) -> list[tuple[dict, Comparison]]:
    """Returns a comparison for each test (`configurations.TEST`), scope and count of the state, with a dict of these.

    The scope is all architectures, or one of them. Baselines are excluded, because they have not learned what to keep.

    Args:
      study: the runs.
      wanted: decides, given that dict, whether to make a comparison.
    """
    table = configurations.table(study)
    table = table[~table["baseline"].astype(bool)]
    found = []
    for test, rows in configurations.by_test(table):
        scopes = [(ALL, rows), *group_by(rows, "architecture")]
        for scope, own in scopes if rows["architecture"].nunique() > 1 else scopes[1:]:
            for state in _STATES:
                compared = dict(zip(TEST, test, strict=True))
                compared |= {"own": rows["own"].all(), "scope": scope, "state": state}
                compared["seeds"] = own["seeds"].sum()
                if wanted(compared):
                    sizes = own["accuracy"], own[state], own[PARAMETERS], own["architecture"]
                    found.append((compared, predictors.compare(*sizes)))
    return found


def numbers(comparisons: list[tuple[dict, Comparison]]) -> pd.DataFrame:
    """Returns two rows for each comparison of `compare`, one for each size in the column `predictor`.

    Columns: what is compared (condition, tasks, test_dataset, own, scope, state), predictor, configurations, seeds (the
    total number of runs), and the measures of `predictors.Predictor`, each with the ends of its interval, _low and
    _high. For both sizes together: collinearity, difference with its ends, verdict and sentence.
    """
    rows = []
    for compared, comparison in comparisons:
        compared = compared | {"configurations": comparison.configurations}
        both = {"collinearity": comparison.collinearity, **_columns("difference", comparison.difference)}
        both |= {"verdict": comparison.verdict, "sentence": comparison.sentence}
        for size, predictor in ((compared["state"], comparison.state), (PARAMETERS, comparison.parameters)):
            measured = {}
            for measure in _MEASURES:
                measured |= _columns(measure, getattr(predictor, measure, predictors.Estimate()))
            rows.append(compared | {"predictor": size} | measured | both)
    return pd.DataFrame(rows)


def _columns(name: str, estimate: predictors.Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


@registry.register_paper_figure(6.5)
def draw(study: Study) -> Chart:
    """Draws the R2 of a monotone fit to each size, with intervals: a panel for each test, a row for each scope."""
    comparisons = compare(study)
    table = numbers(comparisons)
    needs = (
        f"at least {predictors.FEWEST} configurations whose runs are done, which differ in their accuracy and both "
        "sizes"
    )
    lacks = chart.missing({needs: any(comparison.state for _, comparison in comparisons)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    tests = group_by(table.dropna(subset="monotone_r2"), TEST, sort=False)
    tests, more = chart.first(tests, _MOST, "tests")
    scopes = [list(rows["scope"].unique()) for _, rows in tests]
    heights = [0.42 * len(names) + 0.7 for names in scopes]
    figure = Figure(figsize=(9.5, sum(heights) + 1.1), layout="constrained")
    grid = figure.subplots(len(tests), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axes, (test, rows), names in zip(grid, tests, scopes, strict=True):
        chart.name_rows(axes, names)
        axes.set_title(configurations.name_of(test, table), fontsize="medium")
        axes.axvline(0, color="0.4", linestyle=":")
        rows = rows[(rows["predictor"] != PARAMETERS) | (rows["state"] == STATE_PAPER)]  # it is in both comparisons
        for _, row in rows.iterrows():
            _draw_estimate(axes, names.index(row["scope"]), row)
        axes.set_xlim(_LEAST, 1.02)
    grid[-1].set_xlabel("R2 of a monotone fit, on configurations left out")
    lines = [Line2D([], [], linestyle="none", marker=marker, color=colour) for marker, colour, _ in _LOOKS.values()]
    names = [words for _, _, words in _LOOKS.values()]
    figure.legend(lines, names, loc="outside upper center", ncols=3, frameon=False)
    tuned = f" {selections.sentence(study.table, study.trials)}"
    return Chart(_NAME, _TITLE, _caption(comparisons) + tuned + more, figure, table, _PAPER)


def _draw_estimate(axes: Axes, place: int, row: pd.Series) -> None:
    """Draws an R2 with its interval.

    It is an arrow where it is beyond the axis, and hollow where the sizes cannot be separated.
    """
    marker, colour, _ = _LOOKS[row["predictor"]]
    height = place + 0.25 * (list(_LOOKS).index(row["predictor"]) - 1)
    axes.plot([row["monotone_r2_low"], row["monotone_r2_high"]], [height, height], "-", color=colour, linewidth=1.3)
    at = max(row["monotone_r2"], _LEAST + 0.02)
    marker = marker if at == row["monotone_r2"] else "<"
    filling = "white" if row["verdict"] == predictors.COLLINEARITY else colour
    axes.plot(at, height, marker, color=colour, markersize=5.5, markerfacecolor=filling)


def _caption(comparisons: list[tuple[dict, Comparison]]) -> str:
    """Returns an explanation of the figure, and a verdict for each test."""
    text = (
        "How much of the variance of accuracy a fit that does not fall explains, on configurations that it has not "
        "seen: each is predicted from all others. 0 (dotted) is no better than their mean; an arrow is below. Bars: "
        "95% bootstrap intervals over configurations, drawn within each architecture with all of their seeds. Hollow: "
        f"state size and parameter count have a rank correlation of {predictors.COLLINEAR:g} or more there, and cannot "
        "be separated. Baselines do not take part."
    )
    if all(compared["seeds"] == comparison.configurations for compared, comparison in comparisons):
        text += " There is one seed of each configuration."
    return " ".join([text, *sentences(comparisons)])


def sentences(comparisons: list[tuple[dict, Comparison]]) -> list[str]:
    """Returns the verdict of each test over all architectures, with the paper's count of the state.

    Each sentence says whether the verdict is the same with the other count. A last sentence says how many tests have
    too few runs.
    """
    table = numbers(comparisons)
    found, too_few = [], 0
    for test, rows in group_by(table[table["predictor"] == PARAMETERS], TEST, sort=False):
        widest = rows[rows["scope"] == rows["scope"].iloc[0]].set_index("state")  # or the only architecture
        if (widest["verdict"] == predictors.NOT_ENOUGH).all():
            too_few += 1
            continue
        words = configurations.name_of(test, table)
        text = f"{words[0].upper()}{words[1:]}: {widest.loc[STATE_PAPER, 'sentence']}"
        verdicts = widest["verdict"]
        if verdicts[STATE_EXACT] == verdicts[STATE_PAPER]:
            text += " The verdict is the same with all numbers counted that a state keeps."
        else:
            text += f" With all numbers counted that a state keeps: {widest.loc[STATE_EXACT, 'sentence']}"
        found.append(text)
    if too_few:
        found.append(
            f"Tests with too few runs, of {predictors.FEWEST} configurations that a comparison takes: {too_few}."
        )
    return found
