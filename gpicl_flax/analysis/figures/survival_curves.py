"""The fraction of runs that are still on their plateau against the training step."""

import functools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.groups import BASELINE, RULES, Rule, by_panel
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.stats import survival
from gpicl_flax.records.run_folder import DIVERGED

_COLUMNS = 2
_BANDS = 3  # intervals are drawn in panels with at most this many curves


def draw(study: Study, rule: Rule) -> Chart:
    """Draws Kaplan-Meier curves by intervention, a panel for each setting."""
    name, title = f"survival_{rule.name}", f"Runs still on their plateau, by {rule.words}"
    known = rule.known(study.table)
    panels = by_panel(known)
    if not panels:
        return Chart(name, title, f"No run tells the length of its plateau by {rule.words}.")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    entries = sum(known["intervention"].isin([x]).any() for x in study.interventions)
    height = max(3.4 * rows, 0.23 * entries + 1) + 0.4
    figure = Figure(figsize=(4.7 * columns + 2.2, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    low, high = known[rule.steps].min() / 1.3, known[rule.steps].max() * 1.15
    styles = chart.line_styles(study.interventions, BASELINE)
    curves, handles = [], {}
    for axes, (panel, runs) in zip(grid, panels, strict=False):
        groups = [(x, runs[runs["intervention"] == x]) for x in study.interventions]
        groups = [(x, group) for x, group in groups if len(group)]
        for place, (intervention, group) in enumerate(groups):
            lengths = rule.lengths(group)
            curve = survival.curve(lengths)
            # Curves of few runs have few levels, so a small shift keeps them apart.
            shift = 0.02 * (place / (len(groups) - 1) - 0.5) * min(len(groups) / 4, 1.5) if len(groups) > 1 else 0
            handles[intervention] = _draw_curve(
                axes, curve, lengths, low, shift, styles[intervention], band=len(groups) <= _BANDS
            )
            curves.append(pd.DataFrame(vars(curve)).assign(panel=panel, intervention=intervention, runs=len(group)))
        chart.log_steps(axes, low, high)
        axes.set_ylim(-0.03, 1.05)
        axes.set_title(panel, fontsize="medium")
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.supxlabel("training step (log scale)", fontsize="medium")
    figure.supylabel("share of runs still on the plateau", fontsize="medium")
    names = [x for x in study.interventions if x in handles]
    figure.legend([handles[x] for x in names], names, loc="outside right upper", frameon=False)
    return Chart(name, title, _caption(rule, study, known), figure, pd.concat(curves, ignore_index=True))


def _draw_curve(
    axes: Axes, curve: survival.Curve, lengths: survival.Lengths, start: float, shift: float, style, band: bool
):
    steps = np.concatenate([[start], curve.steps])
    share = np.concatenate([[1.0], curve.share])
    (line,) = axes.step(steps, share + shift, where="post", linewidth=1.6, **style)
    if band:
        low, high = (np.concatenate([[np.nan], x]) for x in (curve.low, curve.high))
        axes.fill_between(steps, low, high, step="post", color=style["color"], alpha=0.15, linewidth=0)
    cut = lengths.steps[~lengths.left]
    at = np.searchsorted(curve.steps, cut)
    axes.plot(cut, curve.share[at] + shift, "|", color=style["color"], markersize=9, markeredgewidth=1.6)
    return line


def _caption(rule: Rule, study: Study, known: pd.DataFrame) -> str:
    left_out = len(study.table) - len(known)
    diverged = int((~known[rule.left].astype(bool) & (known["ended"] == DIVERGED)).sum())
    return (
        "Kaplan-Meier curves over runs that differ in their seeds. A curve falls where a run leaves its plateau, told "
        f"by its {rule.words}; a vertical tick marks a run that ended, or stands now, on its plateau, whose length is "
        "only known to be longer. In a panel of several curves each is shifted up or down by up to 0.015, so that they "
        f"do not cover each other. Panels of up to {_BANDS} curves show 95% log-log intervals; the numbers have them "
        "for all."
        + (
            f" {diverged} of the runs that ended on it diverged there: as that may well have to do with the plateau, "
            "read their curves with care."
            if diverged
            else ""
        )
        + rule.caveat
        + (
            f" {left_out} of {len(study.table)} runs do not tell the length of their plateau and are left out."
            if left_out
            else ""
        )
    )


for _place, _rule in enumerate(RULES):
    registry.register_comparison(1 + _place / len(RULES), "panel", most=4)(functools.partial(draw, rule=_rule))
