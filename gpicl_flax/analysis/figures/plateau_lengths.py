"""Median plateaus and speed-ups by intervention."""

import functools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BASELINE, RULES, Rule, by_panel
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, registry
from gpicl_flax.analysis.figures.chart import BLACK, COLOURS, Chart
from gpicl_flax.analysis.stats import survival


def numbers(study: Study, rule: Rule) -> pd.DataFrame:
    """Returns a row for each panel and intervention.

    Columns: panel, intervention, the fields of `survival.Median` (median for its steps), and, if the panel has a
    baseline, the fields of `survival.SpeedUp` (with `speed_up_` before low and high). Those of the baseline itself are
    missing. If any run was stopped early on its plateau, ended_early is the number of those.
    """
    rows, early = [], study.table["stopped_early"].eq("plateau") & ~study.table[rule.left].fillna(True).astype(bool)
    for panel, runs in by_panel(rule.known(study.table)):
        lengths = {x: rule.lengths(group) for x, group in group_by(runs, "intervention")}
        for intervention in (x for x in study.interventions if x in lengths):
            median = vars(survival.median(lengths[intervention]))
            row = {"panel": panel, "intervention": intervention, "median": median.pop("steps")} | median
            if early.any():
                row["ended_early"] = int(early[runs.index[runs["intervention"] == intervention]].sum())
            if BASELINE in lengths and intervention != BASELINE:
                compared = survival.speed_up(lengths[BASELINE], lengths[intervention])
                row |= {"speed_up": compared.ratio, "bound": compared.bound}
                row |= {"speed_up_low": compared.low, "speed_up_high": compared.high, "p_value": compared.p_value}
            rows.append(row)
    columns = ["panel", "intervention", "median", "low", "high", "budget", "runs", "left"]
    columns += ["speed_up", "bound", "speed_up_low", "speed_up_high", "p_value", *["ended_early"] * bool(early.any())]
    return pd.DataFrame(rows, columns=columns).astype({"bound": object})


def draw(study: Study, rule: Rule) -> Chart:
    """Draws medians and all lengths of the plateau (left) and speed-ups (right); a row of panels for each setting."""
    name, title = f"plateau_length_{rule.name}", f"Length of the plateau and speed-up, by {rule.words}"
    known, table = rule.known(study.table), numbers(study, rule)
    if table.empty:
        return Chart(name, title, f"No run tells the length of its plateau by {rule.words}.")
    panels = by_panel(known)
    compares = bool(table["bound"].notna().any())
    counts = [table["panel"].eq(panel).sum() for panel, _ in panels]
    heights = [0.27 * count + 0.75 for count in counts]
    columns = 2 if compares else 1
    figure = Figure(figsize=(5 + 4.5 * compares + 1, sum(heights) + 0.4), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False, height_ratios=heights, sharex="col")
    steps = known[rule.steps]
    limits = steps.min() / 1.4, steps.max() * 1.7
    for row, (panel, runs) in zip(grid, panels, strict=True):
        medians = table[table["panel"] == panel].reset_index(drop=True)
        _draw_medians(row[0], medians, runs, rule, limits)
        row[0].set_title(panel, fontsize="medium")
        if compares:
            _draw_speed_ups(row[1], medians, _ratio_limits(table))
            row[1].set_title(f"{panel}, against '{BASELINE}'", fontsize="medium")
    grid[-1, 0].set_xlabel("length of the plateau (training steps, log scale)")
    if compares:
        grid[-1, 1].set_xlabel("speed-up: times shorter (log scale)")
    return Chart(name, title, _caption(rule, compares), figure, table)


def _draw_medians(
    axes: Axes, medians: pd.DataFrame, runs: pd.DataFrame, rule: Rule, limits: tuple[float, float]
) -> None:
    chart.name_rows(axes, medians["intervention"].tolist())
    chart.log_steps(axes, *limits)
    for row, (_, group) in enumerate(medians.iterrows()):
        _draw_interval(axes, row, group["median"], group["low"], group["high"], group["budget"], limits[1])
        own = runs[runs["intervention"] == group["intervention"]]
        left = own[rule.left].to_numpy(bool)
        steps, heights = own[rule.steps].to_numpy(float), row + _spread(own)
        axes.plot(steps[left], heights[left], "o", color=COLOURS[0], markersize=4, alpha=0.75, markeredgewidth=0)
        axes.plot(steps[~left], heights[~left], ">", color=COLOURS[1], markersize=4.5, fillstyle="none")


def _spread(runs: pd.DataFrame) -> np.ndarray:
    """Returns small vertical shifts that keep the dots of runs apart."""
    return np.linspace(-0.25, 0.25, len(runs)) if len(runs) > 1 else np.zeros(1)


def _draw_interval(axes: Axes, row: int, value: float, low: float, high: float, budget: float, edge: float) -> None:
    """Draws a bar at the median, or a diamond at the budget if the median is beyond it, and its interval.

    An open interval is dotted up to an arrow.
    """
    is_bound = math.isinf(value)
    at = budget if is_bound else value
    start = min(low, at) if math.isfinite(low) else at
    if math.isfinite(high):
        axes.plot([start, high], [row, row], "-", color=BLACK, linewidth=1.2, zorder=1.8)
    elif not math.isnan(high) or is_bound:
        axes.plot([start, at], [row, row], "-", color=BLACK, linewidth=1.2, zorder=1.8)
        axes.plot([at, edge / 1.08], [row, row], ":", color="0.5", linewidth=1.2, zorder=1.8)
        axes.plot(edge / 1.08, row, ">", color="0.5", markersize=4, zorder=1.8)
    if is_bound:
        axes.plot(at, row, "D", color=BLACK, markerfacecolor="white", markersize=5.5, zorder=3)
    else:
        axes.plot(at, row, "|", color=BLACK, markersize=15, markeredgewidth=2.2, zorder=1.9)


def _ratio_limits(table: pd.DataFrame) -> tuple[float, float]:
    values = table[["speed_up", "speed_up_low", "speed_up_high"]].to_numpy(float)
    values = values[np.isfinite(values) & (values > 0)]
    return min(values.min(initial=1) / 1.3, 0.7), max(values.max(initial=1) * 1.5, 2)


def _draw_speed_ups(axes: Axes, medians: pd.DataFrame, limits: tuple[float, float]) -> None:
    chart.name_rows(axes, [""] * len(medians))
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    chart.plain_ticks(axes, *limits)
    axes.axvline(1, color="0.4", linestyle=":")
    for row, (_, group) in enumerate(medians.iterrows()):
        text = "" if group["intervention"] == BASELINE else in_words(group)
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize="small")
        ratio, low, high, bound = (group[key] for key in ("speed_up", "speed_up_low", "speed_up_high", "bound"))
        if pd.isna(bound) or math.isnan(ratio):
            continue
        ends = [max(low, limits[0] * 1.05), min(high, limits[1] / 1.05)]
        ends = [ratio if math.isnan(end) else end for end in ends]
        ends[0] = limits[0] * 1.05 if bound == "at most" else ends[0]
        ends[1] = limits[1] / 1.05 if bound == "at least" else ends[1]
        axes.plot(ends, [row, row], "-", color=BLACK, linewidth=1.1, zorder=1.8)
        if ends[0] == limits[0] * 1.05:
            axes.plot(ends[0], row, "<", color=BLACK, markersize=5)
        if ends[1] == limits[1] / 1.05:
            axes.plot(ends[1], row, ">", color=BLACK, markersize=5)
        axes.plot(
            ratio, row, "D", color=COLOURS[2], markerfacecolor="white" if bound else COLOURS[2], markersize=6, zorder=3
        )


def in_words(row: pd.Series) -> str:
    """Returns the speed-up of a row of `numbers`, in words.

    It is '2.1x', 'at least 2.1x', 'at most 0.5x', 'not known', or '' without a baseline.
    """
    if pd.isna(row["bound"]):
        return ""
    if row["bound"] == "unknown":
        return "not known"
    return f"{row['bound']} {_times(row['speed_up'])}x".strip()


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def median_in_words(row: pd.Series) -> str:
    """Returns a row's median with its interval: '1,200 [900, 4,000]', '> 5,000', '1,200 [900, unbounded]'."""

    def words(steps: float) -> str:
        if math.isfinite(steps):
            return f"{steps:,.0f}"
        return "unbounded" if row["left"] == row["runs"] else f"> {row['budget']:,.0f}"

    interval = "" if math.isnan(row["low"]) else f" [{words(row['low'])}, {words(row['high'])}]"
    return words(row["median"]) + interval


def speed_up_in_words(row: pd.Series) -> str:
    """Returns a row's speed-up with its interval: 'at least 2.1x [1.5, unbounded]'."""
    if pd.isna(row["bound"]) or row["bound"] == "unknown" or math.isnan(row["speed_up_low"]):
        return in_words(row)
    high = _times(row["speed_up_high"]) if math.isfinite(row["speed_up_high"]) else "unbounded"
    return f"{in_words(row)} [{_times(row['speed_up_low'])}, {high}]"


def _caption(rule: Rule, compares: bool) -> str:
    right = (
        " Right: the baseline's median divided by the intervention's, with the 95% bootstrap interval over runs where "
        f"both have five or more. Where the median of '{BASELINE}' is beyond its budget, the ratio is a lower bound "
        "('at least', hollow, arrow)."
        if compares
        else f" There is no speed-up, as no setting has an intervention called '{BASELINE}' beside another."
    )
    return (
        f"Left: each dot is a run at the length of its plateau, told by its {rule.words}; a hollow triangle is a run "
        "that ended, or stands now, on it. The bar is the Kaplan-Meier median, a hollow diamond where fewer than half "
        "have left, with the 95% log-log interval; dotted to an arrow, the runs set it no upper end. A single run has "
        "no interval." + right + rule.caveat
    )


for _place, _rule in enumerate(RULES):
    registry.register_comparison(2 + _place / len(RULES), "panel", most=4)(functools.partial(draw, rule=_rule))
