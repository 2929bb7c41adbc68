"""Fig 4, 11 and 12: memorization, identification and learning-to-learn against the number of tasks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.phases import BEHAVIOURS, GENERAL, behaviour
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import chart, log2_axis, registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.analysis.stats import intervals
from gpicl_flax.records.phase import GAIN_CUT

_PAPER, _NAME, _TITLE = (
    "Figures 4, 11, 12",
    "learning_phases",
    "What is learned within a sequence, against the number of tasks",
)
_KIND = ["model", "base_dataset", "condition"]
_SHADES: dict[str, str] = dict(zip(BEHAVIOURS, (COLOURS[4], COLOURS[5], COLOURS[2]), strict=True))
_MOST = 6


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each model, base_dataset trained on, condition, tasks, test_dataset and num_tasks.

    num_tasks is inf if unbounded. Further columns: mean, low and high of the gain, which is the accuracy at the last
    position minus that at the first; runs; and `last`, the mean accuracy at the last position. There are seen tasks
    only for the base dataset trained on.
    """
    rows = study.final().dropna(subset=["num_tasks"])
    rows = rows[(rows["tasks"] == "unseen") | (rows["test_dataset"] == rows["base_dataset"])]
    axes = ["model", "base_dataset", "tasks", "test_dataset"]
    rows = rows.assign(condition=conditions(rows, axes, across_tasks=True))
    keys = [*_KIND, "tasks", "test_dataset", "num_tasks"]
    last = intervals.table(rows, keys, "last")[[*keys, "mean"]].rename(columns={"mean": "last"})
    return intervals.table(rows, keys, "gain").merge(last, on=keys)


def behaviours(study: Study) -> pd.DataFrame:
    """Returns a row for each model, base_dataset, condition and num_tasks.

    Further columns: seen_gain, unseen_gain with its unseen_low and unseen_high, and behaviour, one of
    `phases.BEHAVIOURS` or None.
    """
    table = numbers(study)
    table = table[table["test_dataset"] == table["base_dataset"]]
    classes = study.table.groupby("base_dataset")["num_classes"].max()
    rows = []
    for key, same in group_by(table, [*_KIND, "num_tasks"]):
        by = same.set_index("tasks").reindex(["seen", "unseen"])
        found = {"seen_gain": by["mean"]["seen"], "unseen_gain": by["mean"]["unseen"]}
        chance = 1 / classes[key[1]]
        kind = behaviour(seen_last=by["last"]["seen"], chance=chance, **found)
        found |= {"unseen_low": by["low"]["unseen"], "unseen_high": by["high"]["unseen"], "behaviour": kind}
        rows.append(dict(zip([*_KIND, "num_tasks"], key, strict=True)) | found)
    columns = [*_KIND, "num_tasks", "seen_gain", "unseen_gain", "unseen_low", "unseen_high", "behaviour"]
    return pd.DataFrame(rows, columns=columns)


def fewest_to_generalize(found: pd.DataFrame) -> float:
    """Returns the smallest number of tasks in rows of `behaviours` with general learning to learn, or NaN."""
    return found[found["behaviour"] == GENERAL]["num_tasks"].min()


@registry.register_paper_figure(4)
def draw(study: Study) -> Chart:
    """Draws a panel for each model, base dataset trained on and condition, with the phases shaded."""
    # Settings with a single number of tasks have no phases to show. Those with the most numbers come first.
    table, found = numbers(study), behaviours(study)
    kinds = [(key, rows) for key, rows in group_by(table, _KIND) if rows["num_tasks"].nunique() > 1]
    lacks = chart.missing(
        {"runs that are done, alike but for at least two numbers of tasks, with a meta-test": bool(kinds)}
    )
    if lacks:
        return Chart(_NAME, _TITLE, lacks, paper=_PAPER)
    every = len(kinds)
    kinds, more = chart.first(sorted(kinds, key=lambda item: -item[1]["num_tasks"].nunique()), _MOST, "panels")
    datasets = sorted(table["test_dataset"].unique())
    figure, grid = chart.panels(len(kinds), columns=2, size=(5.6, 3.7))
    for axes, (key, rows) in zip(grid, kinds, strict=True):
        places = log2_axis.places_of(rows["num_tasks"])
        own = found[(found[_KIND] == list(key)).all(axis=1)]
        _shade(axes, own.set_index("num_tasks")["behaviour"], places)
        for (tested, tasks), curve in group_by(rows, ["test_dataset", "tasks"]):
            at = curve["num_tasks"].map(places)
            errors = (curve["mean"] - curve["low"], curve["high"] - curve["mean"])
            style = chart.test_style(tested, tasks, datasets)
            axes.errorbar(at, curve["mean"], errors, markersize=4.5, linewidth=1.6, elinewidth=0.8, **style)
        axes.axhline(GAIN_CUT, color="0.4", linestyle=":", linewidth=1)
        log2_axis.name(axes.xaxis, places)
        axes.set(xlabel="number of tasks K (log scale)", ylabel="accuracy gained in a sequence\n(last less first)")
        chart.title(axes, f"{key[0]} trained on {key[1]}", key[2])
        axes.grid(alpha=0.3)
    used = [kind for kind in BEHAVIOURS if (found["behaviour"] == kind).any()]
    shades = [Patch(color=_SHADES[kind], alpha=0.25, linewidth=0, label=kind) for kind in used]
    chart.legend(figure, columns=3 if len(kinds) > 1 else 2, extra=shades)
    caption = (
        f"{intervals.WORDS} The shades are told by the means on the base dataset trained on, with a gain of "
        f"{GAIN_CUT:g} (dotted) as the cut: general learning to learn gains that on unseen tasks, task identification "
        f"on seen tasks only, task memorization on neither, though seen tasks are known {GAIN_CUT:g} above chance; "
        "unshaded is none of these, as on the plateau." + more
    )
    fewest = fewest_to_generalize(found)
    ours = (
        f"{groups.tasks(fewest)} at the fewest"
        if fewest == fewest
        else f"none, up to {groups.tasks(found['num_tasks'].max())}"
    )
    ours += f" (of {every} settings)" if every > 1 else ""
    return Chart(_NAME, _TITLE, caption, figure, table, _PAPER, {"tasks_to_generalize": ours})


def _shade(axes: Axes, kinds: pd.Series, places: dict[float, float]) -> None:
    """Shades every number of tasks up to the middle between it and the next."""
    at = list(places.values())
    edges = [at[0] - 0.5, *((a + b) / 2 for a, b in zip(at[:-1], at[1:], strict=True)), at[-1] + 0.5]
    axes.set_xlim(edges[0], edges[-1])
    for value, low, high in zip(places, edges[:-1], edges[1:], strict=True):
        kind = kinds.get(value)
        if kind in _SHADES:
            axes.axvspan(low, high, color=_SHADES[kind], alpha=0.25, linewidth=0, zorder=0)
