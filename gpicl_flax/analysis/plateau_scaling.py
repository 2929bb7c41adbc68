"""How the length of the plateau scales with the task batch size, as in Fig 8b and 18 of the paper."""

import dataclasses

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis import chart, cost, groups, power_law
from gpicl_flax.analysis.chart import Chart
from gpicl_flax.analysis.groups import Rule
from gpicl_flax.analysis.power_law import PowerLaw
from gpicl_flax.analysis.study import Study

_BATCH_SIZE = "task_batch_size"
_SAME = ["setting", "intervention", "num_tasks"]
_FITTED = [field.name for field in dataclasses.fields(PowerLaw)]
_MARKERS = "osD^vPX*<>"


def numbers(study: Study, rule: Rule) -> pd.DataFrame:
    """A row for each setting, intervention and number of tasks whose runs have two task batch sizes or more.

    Columns: setting, intervention, num_tasks, the fields of `power_law.PowerLaw` (of the length in steps; in tasks, which are
    steps times B, the exponent is larger by one), and why: there is no fit, or ''.
    """
    rows = []
    for same, runs in _known(study, rule).groupby(_SAME):
        if runs[_BATCH_SIZE].nunique() > 1:
            law = power_law.fit(runs[_BATCH_SIZE], rule.lengths(runs))
            fitted = {"why": law} if isinstance(law, str) else vars(law) | {"why": ""}
            rows.append(dict(zip(_SAME, same, strict=True)) | fitted)
    return pd.DataFrame(rows, columns=[*_SAME, *_FITTED, "why"])


def _known(study: Study, rule: Rule) -> pd.DataFrame:
    """The runs whose plateau has a length, in groups that batch sizes do not divide."""
    table = study.table.drop(columns=f"binding_TaskDistribution.{_BATCH_SIZE}", errors="ignore")
    return rule.known(groups.grouped(table)).dropna(subset=[*_SAME, _BATCH_SIZE])


def sentence(row: pd.Series) -> str:
    """What a row of `numbers` says."""
    start = f"K = {groups.number(row['num_tasks'])}"
    if row["why"]:
        return f"{start}: no fit, {row['why']}."
    steps = _interval(row["exponent"], row["low"], row["high"])
    tasks = _interval(*(row[name] + 1 for name in ("exponent", "low", "high")))
    text = f"{start}: the plateau lasts for B^{steps} steps, which is B^{tasks} tasks"
    if row["low"] > -1:
        text += ": larger batches leave it after more tasks"
    elif row["high"] < -1:
        text += ": larger batches leave it after fewer tasks"
    return f"{text} ({row['left']:.0f} of {row['runs']:.0f} runs have left)."


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def draw(study: Study) -> Chart:
    """Left the length of the plateau in steps, right in tasks, against B; a colour for each K, a row for each setting."""
    rule = cost.rule_of(study)
    name, title = "plateau_scaling", f"Length of the plateau against the task batch size, by {rule.words}"
    known, table = _known(study, rule), numbers(study, rule)
    if table.empty:
        why = "It takes runs of two task batch sizes or more that are the same otherwise and tell the length of their plateau."
        return Chart(name, title, f"Not drawn. {why}", numbers=table)
    panels = list(table.groupby(_SAME[:2]))
    counts = sorted(table["num_tasks"].unique())
    styles = chart.line_styles([groups.number(count) for count in counts], "")
    figure = Figure(figsize=(11, 3.2 * len(panels) + 0.5), layout="constrained")
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex=True, sharey="col")
    for row, (panel, laws) in zip(grid, panels, strict=True):
        runs = known[(known[_SAME[:2]] == list(panel)).all(axis=1)]
        for axes, in_tasks, unit in zip(row, (False, True), ("training steps", "tasks"), strict=True):
            for _, law in laws.iterrows():
                own, place = runs[runs["num_tasks"] == law["num_tasks"]], counts.index(law["num_tasks"])
                marker = _MARKERS[place % len(_MARKERS)]
                _draw_group(axes, own, rule, law, in_tasks, styles[groups.number(law["num_tasks"])], marker)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_title(", ".join(dict.fromkeys(panel)), fontsize="medium")
            axes.set_ylabel(f"plateau ({unit})")
            axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("task batch size B")
    names = [groups.number(count) for count in counts]
    handles = [Line2D([], [], marker=_MARKERS[place % len(_MARKERS)], **styles[x]) for place, x in enumerate(names)]
    figure.legend(handles, names, title="number of tasks", loc="outside right upper", frameon=False)
    return Chart(name, title, _caption(rule, table), figure, table)


def _draw_group(
    axes: Axes, runs: pd.DataFrame, rule: Rule, law: pd.Series, in_tasks: bool, style: dict, marker: str
) -> None:
    """The runs of a group and the line through them."""
    batch = runs[_BATCH_SIZE].to_numpy(float)
    lengths = rule.lengths(runs)
    length = lengths.steps * (batch if in_tasks else 1)
    colour, left = style["color"], lengths.left
    axes.plot(batch[left], length[left], marker, color=colour, markersize=4.5, alpha=0.75, markeredgewidth=0)
    axes.plot(batch[~left], length[~left], "^", color=colour, markersize=5.5, fillstyle="none")
    if not law["why"]:
        ends = np.array([batch.min(), batch.max()])
        line = law["coefficient"] * ends ** (law["exponent"] + in_tasks)
        axes.plot(ends, line, linewidth=1.2, **style)


def _caption(rule: Rule, table: pd.DataFrame) -> str:
    text = (
        f"The plateau of every run, told by its {rule.words}, against the task batch size B, in steps and in tasks (steps times B). "
        "A hollow triangle is a run that ended, or stands now, on its plateau, which is longer. Lines: power laws, fitted by "
        "maximum likelihood with those runs as censored, with 95% intervals of their exponents." + rule.caveat
    )
    several = table[_SAME[:2]].drop_duplicates()
    for _, row in table.iterrows():
        where = f"{row['setting']}, {row['intervention']}, " if len(several) > 1 else ""
        text += f" {where}{sentence(row)}"
    return text
