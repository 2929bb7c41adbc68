"""Scaling laws: accuracy and loss against state, parameters, tasks, examples and compute."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from gpicl_flax.analysis.data import size_lines
from gpicl_flax.analysis.data.runs import criteria
from gpicl_flax.analysis.data.size_lines import ACCURACY, LOSS, WORDS, Line
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import intervals, law_errors, scaling_law
from gpicl_flax.analysis.stats.intervals import Estimate
from gpicl_flax.analysis.stats.law_forms import Form, OffsetPower, Saturating
from gpicl_flax.analysis.stats.scaling_law import FEWEST, Law

_NAMES = {ACCURACY: "scaling_laws", LOSS: "scaling_laws_of_loss"}
_TITLES = {ACCURACY: "Scaling laws of accuracy", LOSS: "Scaling laws of loss"}
_MOST = 9  # panels
_SAID = 8  # sentences of a kind in a caption
_BLACK = "Transformer"
_CURVE = 80  # points of a curve


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A line, and its law, or the reason why it has none."""

    line: Line
    law: Law | str


def fitted(study: Study, score: str) -> list[Fitted]:
    """Returns every line of a study with its law.

    Args:
      study: the runs.
      score: `size_lines.ACCURACY` or `size_lines.LOSS`.
    """
    floor = _floor(study)
    return [
        Fitted(line, _fit(line, Saturating(line.chance) if score == ACCURACY else OffsetPower(floor)))
        for line in size_lines.lines(study, score)
    ]


def _fit(line: Line, form: Form) -> Law | str:
    if (reason := scaling_law.refusal(len(line.sizes))) is not None:
        return reason
    if not len(line.values):
        return "no seed was run at all sizes"
    return scaling_law.fit(line.sizes, line.values, form, seed=line.draw_seed)


def _floor(study: Study) -> float:
    """Returns the lowest loss there can be: that of a density has none."""
    known = [criteria(row) for _, row in study.ended().iterrows()]
    return -math.inf if any(found and found.score == "squared_error" for found in known) else 0.0


def numbers(found: Sequence[Fitted]) -> pd.DataFrame:
    """Returns a row for each line.

    Columns: size (what the law is in), condition, tasks, test_dataset, own, architecture, sizes and seeds (how many),
    seeds_left_out (that were run at some sizes only), smallest, largest, no_law (why there is none, or ''), law (its
    formula), its constants, and left_out: the error at the largest size of the law fitted without it. Constants and
    error have the ends of their intervals in columns with _low and _high.
    """
    return pd.DataFrame([_row(one) for one in found])


def _row(one: Fitted) -> dict[str, object]:
    line, law = one.line, one.law
    row: dict[str, object] = {
        name: getattr(line, name) for name in ("size", "condition", "tasks", "test_dataset", "own", "architecture")
    }
    row |= {"sizes": len(line.sizes), "seeds": len(line.values), "seeds_left_out": line.seeds_left_out}
    row |= {"smallest": line.sizes[0], "largest": line.sizes[-1]}
    if isinstance(law, str):
        return row | {"no_law": law}
    row |= {"no_law": "", "law": law.form.formula}
    for name, estimate in (law.constants | {"left_out": law.left_out}).items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def sentences(found: Sequence[Fitted], score: str) -> list[str]:
    """Returns for each test which size predicts the largest models best, and with what error."""
    texts = []
    for (condition, tasks, dataset), laws in _by_test(found):
        where = ", ".join(filter(None, (f"{tasks} tasks of {dataset}", condition)))
        texts.append(f"{where[0].upper()}{where[1:]}: {_verdict(laws, score)}")
    return texts


def _by_test(found: Sequence[Fitted]) -> Iterator[tuple[tuple[str, str, str], dict[str, dict[str, Law]]]]:
    """Yields each test with its laws by size and architecture."""
    tests: dict[tuple[str, str, str], dict[str, dict[str, Law]]] = {}
    for one in found:
        if isinstance(one.law, Law):
            test = one.line.condition, one.line.tasks, one.line.test_dataset
            tests.setdefault(test, {}).setdefault(one.line.size, {})[one.line.architecture] = one.law
    yield from sorted(tests.items())


def _verdict(laws: dict[str, dict[str, Law]], score: str) -> str:
    """Returns the comparison of sizes, over the architectures that have a law in each of them."""
    common = set.intersection(*map(set, laws.values()))
    if not common:  # laws of different runs are not compared
        return " ".join(_verdict({size: own}, score) for size, own in laws.items())
    compared = law_errors.compare({size: [own[name] for name in sorted(common)] for size, own in laws.items()})
    over = f" over {len(common)} architectures" if len(common) > 1 else f" of {next(iter(common))}"
    best, rest = compared.best, compared.margins
    error = _in_words(compared.errors[best], score)
    if not rest:
        return f"the law in {WORDS[best]}{over} misses the largest size, left out of the fit, by {error}."
    others = " and ".join(
        f"{WORDS[size]} by {_in_words(compared.errors[size], score)}, which is {_in_words(rest[size], score)} more"
        for size in rest
    )
    text = f"laws in {WORDS[best]}{over} miss the largest size, left out of the fit, by {error}; in {others}."
    if compared.decided:
        return f"{text} {WORDS[best].capitalize()} predicts it best."
    return f"{text} That does not decide which predicts it best."


def _in_words(estimate: Estimate, score: str) -> str:
    """Returns an error in points of accuracy, or in the unit of the loss."""
    scale, digits, unit = (100, 1, " points") if score == ACCURACY else (1, 3, "")
    value, low, high = (f"{scale * x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{unit}" + ("" if math.isnan(estimate.low) else f" [{low}, {high}]")


def draw_score(study: Study, score: str) -> Chart:
    """Draws a panel for each test and size in which some architecture has a law, with a curve for each architecture.

    Architectures without a law have their points alone.
    """
    name, title = _NAMES[score], _TITLES[score]
    found = fitted(study, score)
    table = numbers(found)
    with_law = {_panel(one.line) for one in found if isinstance(one.law, Law)}
    if not with_law:
        return Chart(name, title, _lacks(found))
    keys = sorted(
        with_law,
        key=lambda key: (
            not key[0],
            key[2:4] != ("unseen", key[3]),
            *map(str, key[2:4]),
            key[1],
            list(WORDS).index(key[4]),
        ),
    )
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
    return Chart(name, title, _caption(found, score) + more, figure, table)


def _panel(line: Line) -> tuple[bool, str, str, str, str]:
    return line.own, line.condition, line.tasks, line.test_dataset, line.size


def _axis(size: str) -> str:
    return {
        size_lines.COMPUTE: "compute (flops, 6 x parameters x examples)",
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
        text += " " + " ".join(_without_law(found))
    return text


def _without_law(found: Sequence[Fitted]) -> list[str]:
    """Returns a sentence for each reason why lines have no law."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        if isinstance(one.law, str):
            words = f"{one.line.architecture} against {WORDS[one.line.size]}"
            reasons.setdefault(one.law, []).append(words)
    texts = []
    for reason, names in reasons.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _SAID} more" if len(names) > _SAID else ""
        texts.append(f"No law for {', '.join(names[:_SAID])}{more}: {reason}.")
    return texts


def _caption(found: Sequence[Fitted], score: str) -> str:
    form = Saturating if score == ACCURACY else OffsetPower
    what = "Accuracy of the last prediction" if score == ACCURACY else "Loss, the mean over positions,"
    text = (
        f"{what} of runs that are alike but for their seeds and one size, and the law {form.formula} of its mean over "
        "seeds. Points: means over seeds with Student's 95% intervals. Bands: 95% intervals of the law, by whole "
        "seeds, resampled with Student's weights; one seed has none. "
    )
    if any(one.line.size == size_lines.COMPUTE for one in found):
        text += "Compute is an estimate, and too low for models that use a parameter several times. "
    if left_out := sum(one.line.seeds_left_out for one in found):
        text += f"Seeds that were not run at all sizes of a line are left out ({left_out}). "
    said = sentences(found, score)
    text += " ".join(said[:_SAID])
    if len(said) > _SAID:
        text += f" {len(said) - _SAID} further tests are in the numbers."
    return " ".join([text, *_without_law(found)])


@registry.register_comparison(9, "", most=0)
def draw(study: Study) -> Chart:
    """Draws the laws of accuracy."""
    return draw_score(study, ACCURACY)


@registry.register_comparison(9.5, "", most=0)
def draw_loss(study: Study) -> Chart:
    """Draws the laws of loss."""
    return draw_score(study, LOSS)
