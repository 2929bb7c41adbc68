"""A report of a sweep or of one run: every figure that its runs allow, their numbers, and a page that shows them."""

import dataclasses
import io
from collections.abc import Iterator

import matplotlib
import pandas as pd
from etils import epath

from gpicl_flax.analysis import (
    cost,
    diagnostics,
    final_losses,
    learning_curve,
    matching_growth,
    one_run,
    page,
    phase_diagram,
    phases,
    plateau_lengths,
    plateau_scaling,
    size_predictors,
    state_size,
    study,
    survival_curves,
)
from gpicl_flax.analysis.chart import Chart
from gpicl_flax.analysis.groups import BASELINE, RULES, by_panel
from gpicl_flax.analysis.one_run import OneRun
from gpicl_flax.analysis.study import Study
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder

# What is drawn of a sweep, in the order of the page: a function from a study and `after_drop` to a `Chart`, and how many of
# which column's values one figure holds at most; where there are more, there are several figures.
_CHARTS = (
    *((lambda of, _, rule=rule: survival_curves.draw(of, rule), "panel", 4) for rule in RULES),
    *((lambda of, _, rule=rule: plateau_lengths.draw(of, rule), "panel", 4) for rule in RULES),
    (cost.draw, "panel", 4),
    (lambda of, _: phase_diagram.draw(of), "setting", 3),
    (lambda of, _: matching_growth.draw(of), "panel", 3),
    (lambda of, _: state_size.draw(of), "panel", 2),
    (lambda of, _: size_predictors.draw(of), "panel", 2),
    (lambda of, _: plateau_scaling.draw(of), "model", 8),
    (lambda of, _: final_losses.draw(of), "setting", 4),
)


def write(workdir: epath.PathLike, out: epath.PathLike | None = None, *, after_drop: int | None = None) -> epath.Path:
    """Writes a report of the runs in `workdir` into the folder `out` and returns the path of its page, index.html.

    Beside it: each figure as PNG and SVG, what it shows as CSV, and runs.csv and evaluations.csv with all runs.

    Args:
      workdir: folder of a sweep, or of one run.
      out: None: the folder report in `workdir`. Files of the same names are replaced.
      after_drop: how many steps after their drop runs are compared; None: a quarter of the steps of the
        shortest intervention.

    Raises:
      UsageError: there is no run.
    """
    of = study.load(workdir)
    out = epath.Path(out) if out is not None else RunFolder(workdir).path / "report"
    out.mkdir(parents=True, exist_ok=True)
    single = len(of.folders) == 1
    (out / "runs.csv").write_text(of.table.assign(phase=phases.phases(of.table)).to_csv(index=False))
    (out / "evaluations.csv").write_text(of.evaluations.to_csv(index=False))
    sections = [_overview(of)]
    if not single:
        sections += _tables(of)
    for chart in _charts_of_a_run(one_run.read(of.folders[0])) if single else _charts_of_a_sweep(of, after_drop):
        _save(chart, out)
        sections.append(page.chart_section(chart))
    gaps = of.table[of.table["gaps"] != ""]
    if len(gaps):
        lines = [f"{run_id}: {text}" for run_id, text in zip(gaps["run_id"], gaps["gaps"], strict=True)]
        sections.append(page.list_section("What runs do not have", lines))
    index = out / "index.html"
    index.write_text(page.render(f"Report of {RunFolder(workdir).path.name}", sections))
    return index


def _charts_of_a_sweep(of: Study, after_drop: int | None) -> Iterator[Chart]:
    for draw, column, most in _CHARTS:
        parts = of.parts(column, most)
        for number, part in enumerate(parts, 1):
            chart = draw(part, after_drop)
            if len(parts) > 1:
                title = f"{chart.title} ({number} of {len(parts)})"
                chart = dataclasses.replace(chart, name=f"{chart.name}_{number}", title=title)
            yield chart
    diagnosed = of.table[of.table["unseen_plateau_steps"].notna()].dropna(subset=["panel", "intervention"])
    if diagnosed.empty:
        yield Chart("diagnostics", "Diagnostics", "No run has diagnostics.")
    one_each = diagnosed.sort_values(["panel", "seed"], kind="stable").drop_duplicates("intervention")
    for index in sorted(one_each.index, key=lambda index: of.interventions.index(of.table["intervention"][index])):
        yield diagnostics.draw(one_run.read(of.folders[index]))


def _charts_of_a_run(run: OneRun) -> Iterator[Chart]:
    yield learning_curve.chart(run)
    yield diagnostics.draw(run)


def _save(chart: Chart, out: epath.Path) -> None:
    if chart.numbers is not None:
        (out / f"{chart.name}.csv").write_text(chart.numbers.to_csv(index=False))
    for ending in ("png", "svg") if chart.figure is not None else ():
        buffer = io.BytesIO()
        # The same runs give the same files.
        with matplotlib.rc_context({"svg.hashsalt": chart.name}):
            chart.figure.savefig(buffer, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else None)
        (out / f"{chart.name}.{ending}").write_bytes(buffer.getvalue())


def _overview(of: Study) -> str:
    ended = of.table["ended"]
    counts = {"done": (ended == DONE).sum(), "diverged": (ended == DIVERGED).sum(), "not ended": ended.isna().sum()}
    text = f"{len(ended)} run{'s' if len(ended) > 1 else ''}: "
    text += ", ".join(f"{count} {words}" for words, count in counts.items() if count) + "."
    more = " Diagnostics are of one run an intervention; <code>gpicl report RUN_FOLDER</code> draws those of any run."
    more = more if len(ended) > 1 else ""
    return (
        f'<p>{text} Their numbers: <a href="runs.csv">runs.csv</a>; those of all evaluations: '
        f'<a href="evaluations.csv">evaluations.csv</a>.{more}</p>'
    )


def _tables(of: Study) -> Iterator[str]:
    """The medians and speed-ups by each rule that runs tell, and how runs ended."""
    for rule in RULES:
        numbers = plateau_lengths.numbers(of, rule)
        if not numbers.empty:
            yield page.table_section(
                f"Medians and speed-ups, by {rule.words}",
                _in_words(numbers),
                "Median length of the plateau in training steps, and how many times shorter it is than that of "
                f"'{BASELINE}', each with its 95% interval; '>' is the most steps that a run of the group was watched for. "
                "p: permutation test of the log-rank statistic against that baseline, not corrected for the number of "
                "comparisons; 0.1 is the least that three runs against three can have. One run has neither interval nor p, "
                "and fewer than five have no interval of a speed-up." + rule.caveat,
            )
    ends = of.table.assign(phase=phases.phases(of.table).fillna("unknown"))
    ends = ends.groupby(["panel", "intervention"])["phase"].value_counts().unstack(fill_value=0)
    if not ends.empty:
        rows = [(panel, x) for panel, _ in by_panel(of.table) for x in of.interventions if (panel, x) in ends.index]
        columns = [phase for phase in (*phases.PHASES, "unknown") if phase in ends]
        yield page.table_section(
            "Phases",
            ends.loc[rows, columns].reset_index().rename(columns={"panel": "setting"}).rename_axis(columns=None),
            f"How many runs of each kind stand on their plateau by their training loss, or else generalize, gaining at least "
            f"{phases.GAIN_CUT:g} of accuracy within a sequence of an unseen task, or else overfit. {phases.CAVEAT}",
        )


def _in_words(numbers: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": numbers["panel"],
            "intervention": numbers["intervention"],
            "left": [f"{left} of {runs}" for left, runs in zip(numbers["left"], numbers["runs"], strict=True)],
            "median [95% interval]": numbers.apply(plateau_lengths.median_in_words, axis=1),
            "speed-up [95% interval]": numbers.apply(plateau_lengths.speed_up_in_words, axis=1),
            "p": [f"{p:.2g}" if pd.notna(p) else "" for p in numbers["p_value"]],
        }
    )
