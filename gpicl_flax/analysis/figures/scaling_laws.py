"""Scaling laws: accuracy and loss against state, parameters, tasks, examples and compute."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis.data import line_laws, size_lines
from gpicl_flax.analysis.data.line_laws import Fitted
from gpicl_flax.analysis.data.runs import criteria
from gpicl_flax.analysis.data.size_lines import ACCURACY, LOSS, WORDS, Line
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals
from gpicl_flax.analysis.stats.law_forms import OffsetPower, Saturating
from gpicl_flax.analysis.stats.scaling_law import FEWEST, Law

_NAMES = {ACCURACY: "scaling_laws", LOSS: "scaling_laws_of_loss"}
_TITLES = {ACCURACY: "Scaling laws of accuracy", LOSS: "Scaling laws of loss"}
_MOST = 9  # panels
_SAID = 8  # sentences about tests in a caption
_BLACK = "Transformer"
_CURVE = 80  # points of a curve


def draw_score(study: Study, score: str) -> Chart:
    """Draws a panel for each test and size in which some architecture has a law, with a curve for each architecture.

    Architectures without a law have their points alone.
    """
    name, title = _NAMES[score], _TITLES[score]
    found = line_laws.fitted(study, score)
    table = line_laws.numbers(found)
    with_law = {_panel(one.line) for one in found if isinstance(one.law, Law)}
    if not with_law:
        return Chart(name, title, _lacks(found))
    keys = sorted(with_law, key=_place)
    keys, more = chart.first(keys, _MOST, "panels")
    figure, grid = chart.panels(len(keys), columns=3, size=(4.4, 3.5))
    styles = chart.line_styles(sorted({one.line.architecture for one in found}), _BLACK)
    for axes, key in zip(grid, keys, strict=True):
        own = [one for one in found if _panel(one.line) == key]
        for one in own:
            _draw_line(axes, one, styles[one.line.architecture])
        line = own[0].line
        chart.title(axes, f"{line.tasks} tasks of {line.test_dataset}", line.condition)
        axes.set_xscale("log")
        axes.set_xlabel(f"{_axis(line.size)}, log scale")
        axes.grid(alpha=0.3)
        if score == ACCURACY:
            axes.axhline(line.chance, color="0.5", linestyle=":", linewidth=1)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_ylabel("accuracy of the last prediction")
        else:
            axes.set_ylabel(_loss_unit(study))
    chart.legend(figure)
    return Chart(name, title, _caption(study, found, score) + more, figure, table)


def _panel(line: Line) -> tuple[bool, str, str, str, str]:
    return line.own, line.condition, line.tasks, line.test_dataset, line.size


def _place(panel: tuple[bool, str, str, str, str]) -> tuple[object, ...]:
    """Returns where a panel comes: the base dataset trained on first, and unseen tasks before seen ones."""
    own, condition, tasks, test_dataset, size = panel
    return not own, condition, test_dataset, tasks != "unseen", list(WORDS).index(size)


def _axis(size: str) -> str:
    return {
        size_lines.COMPUTE: "flops of training",
        size_lines.EXAMPLES: "examples trained on",
    }.get(size, WORDS[size])


def _loss_unit(study: Study) -> str:
    first = next((criteria(row) for _, row in study.ended().iterrows()), None)
    return chart.loss_in_words(first)


def _draw_line(axes: Axes, one: Fitted, style: dict) -> None:
    """Draws the means over seeds with Student's intervals, and the law with its own as a band."""
    line, colour = one.line, style["color"]
    if len(line.values) > 1:
        mean, low, high = intervals.of_runs(line.values)
        axes.vlines(line.sizes, low, high, color=colour, linewidth=1)
    elif len(line.values):
        mean = line.values[0]
    else:
        return
    axes.plot(line.sizes, mean, "o", color=colour, markersize=4, label=line.architecture)
    if isinstance(one.law, Law):
        n = np.geomspace(line.sizes[0], line.sizes[-1], _CURVE)
        value, low, high = one.law.at(n)
        axes.plot(n, value, color=colour, linestyle=style["linestyle"], linewidth=1.4)
        axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)


def _lacks(found: Sequence[Fitted]) -> str:
    needs = f"runs that are done, alike but for their seeds and at least {FEWEST} sizes of one kind"
    text = chart.missing({f"{needs} ({', '.join(WORDS.values())})": False})
    most = max((len(one.line.sizes) for one in found), default=0)
    if 0 < most < FEWEST:
        text += f" These runs have at most {most}."
    elif most:
        text += " " + " ".join(line_laws.without_law(found))
    return text


def _caption(study: Study, found: Sequence[Fitted], score: str) -> str:
    form = Saturating if score == ACCURACY else OffsetPower
    what = "Accuracy of the last prediction" if score == ACCURACY else "Loss, the mean over positions,"
    text = (
        f"{what} of runs that are alike but for their seeds and one size, and the law {form.formula} of its mean over "
        "seeds. Points: means over seeds with Student's 95% intervals. Bands: 95% intervals of the law, by whole "
        "seeds, resampled with Student's weights; one seed has none. They do not say whether the law is the right one: "
        "its error at the largest size does, when it is fitted without it. "
    )
    if any(one.line.size == size_lines.COMPUTE for one in found):
        if size_lines.counts_flops(study):
            text += "Flops are those of matrix products, forward and backward. "
        else:
            text += "Flops are an estimate, and too low for models that use a parameter several times. "
    if left_out := sum(one.line.seeds_left_out for one in found):
        text += f"Seeds that were not run at all sizes of a line are left out ({left_out}). "
    said = line_laws.sentences(found, score)
    text += " ".join(said[:_SAID])
    if len(said) > _SAID:
        text += f" {len(said) - _SAID} further tests are in the numbers."
    return " ".join([text, *line_laws.without_law(found)])


@registry.register_comparison(9, "", most=0)
def draw(study: Study) -> Chart:
    """Draws the laws of accuracy."""
    return draw_score(study, ACCURACY)


@registry.register_comparison(9.5, "", most=0)
def draw_loss(study: Study) -> Chart:
    """Draws the laws of loss."""
    return draw_score(study, LOSS)
