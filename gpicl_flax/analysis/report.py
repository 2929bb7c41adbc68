"""A report of a sweep or of one run: every figure that its runs allow, their numbers, and a page that shows them."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import matplotlib
from etils import epath

from gpicl_flax.analysis import (
    adam_moments,
    cost,
    diagnostics,
    final_losses,
    gradient_dynamics,
    learning_curve,
    learning_phases,
    loss_over_steps,
    matching_growth,
    memorization,
    methods,
    one_run,
    page,
    phase_diagram,
    phases,
    phases_by_batch_size,
    plateau_lengths,
    plateau_scaling,
    pretrained_features,
    sequence_length,
    size_predictors,
    state_size,
    study,
    survival_curves,
    tables,
    tensor_gradients,
    vsml_layers,
    weight_decay,
    within_sequence,
)
from gpicl_flax.analysis.chart import Chart
from gpicl_flax.analysis.groups import RULES
from gpicl_flax.analysis.one_run import OneRun
from gpicl_flax.analysis.study import Study
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder

_NAMED = 6  # runs that lack the same and are named


class _Entry(NamedTuple):
    """A chart of the page: the function that draws it from a study, and how many of which column's values one figure holds at
    most; where there are more, there are several figures."""

    draw: Callable[[Study], Chart]
    column: str = ""
    most: int = 0


# The figures of the paper, in its order. Each tells itself what it is called, and what it needs.
_PAPER = (
    _Entry(memorization.draw),
    _Entry(within_sequence.draw),
    _Entry(methods.draw),
    _Entry(learning_phases.draw),
    _Entry(final_losses.draw),
    _Entry(state_size.draw),
    _Entry(size_predictors.draw),
    _Entry(loss_over_steps.draw),
    _Entry(phases_by_batch_size.draw),
    _Entry(plateau_scaling.draw),
    _Entry(gradient_dynamics.draw),
    _Entry(pretrained_features.draw),
    _Entry(sequence_length.draw),
    _Entry(adam_moments.draw),
    _Entry(tensor_gradients.draw),
    _Entry(weight_decay.draw),
    _Entry(vsml_layers.draw),
)


def _comparisons(after_drop: int | None) -> tuple[_Entry, ...]:
    """What compares interventions, beyond the paper."""
    return (
        *(_Entry(functools.partial(survival_curves.draw, rule=rule), "panel", 4) for rule in RULES),
        *(_Entry(functools.partial(plateau_lengths.draw, rule=rule), "panel", 4) for rule in RULES),
        _Entry(functools.partial(cost.draw, after_drop=after_drop), "panel", 4),
        _Entry(phase_diagram.draw, "setting", 3),
        _Entry(matching_growth.draw, "panel", 3),
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
    single = of.folders[0].path == RunFolder(workdir).path  # a sweep may have one run, too
    (out / "runs.csv").write_text(of.table.assign(phase=phases.phases(of.table)).to_csv(index=False))
    (out / "evaluations.csv").write_text(of.evaluations.to_csv(index=False))
    sections = [_overview(of)]
    if single:
        charts = list(_charts_of_a_run(one_run.read(of.folders[0])))
        sections += _save(charts, out)
    else:
        charts, compared = list(_drawn(of, _PAPER)), [*_drawn(of, _comparisons(after_drop)), *_diagnostics(of)]
        sections += [tables.insights(of).html, tables.published_values(charts).html, *_save(charts, out)]
        sections += [table.html for table in (*tables.accuracies(of), *tables.plateaus(of), *tables.phases(of))]
        sections += _save(compared, out)
        charts += compared
    lacking = [f"{chart.heading}: {chart.caption}" for chart in charts if chart.figure is None]
    if lacking:
        sections.append(page.list_section("Not drawn, and what they need", lacking))
    gaps = of.table[of.table["gaps"] != ""]
    if len(gaps):
        lines = []
        for text, same in gaps.groupby("gaps", sort=False)["run_id"]:
            if len(same) > _NAMED:
                lines.append(f"{', '.join(same[:_NAMED])} and {len(same) - _NAMED} more: {text}")
            else:
                lines += [f"{run_id}: {text}" for run_id in same]
        sections.append(page.list_section("What runs do not have", lines))
    index = out / "index.html"
    index.write_text(page.render(f"Report of {RunFolder(workdir).path.name}", sections))
    return index


def _drawn(of: Study, entries: Sequence[_Entry]) -> Iterator[Chart]:
    for draw, column, most in entries:
        parts = of.parts(column, most) if most else [of]
        if len(parts) > 1 and len(of.interventions) < 2:  # many figures that would compare nothing
            chart = draw(parts[0])
            yield Chart(chart.name, chart.title, "Needs at least two interventions to compare.")
            continue
        for number, part in enumerate(parts, 1):
            chart = draw(part)
            if len(parts) > 1:
                title = f"{chart.title} ({number} of {len(parts)})"
                chart = dataclasses.replace(chart, name=f"{chart.name}_{number}", title=title)
            yield chart


def _diagnostics(of: Study) -> Iterator[Chart]:
    diagnosed = of.table[of.table["unseen_plateau_steps"].notna()].dropna(subset=["panel", "intervention"])
    if diagnosed.empty:
        yield Chart("diagnostics", "Diagnostics", "No run has diagnostics.")
    one_each = diagnosed.sort_values(["panel", "seed"], kind="stable").drop_duplicates("intervention")
    for index in sorted(one_each.index, key=lambda index: of.interventions.index(of.table["intervention"][index])):
        yield diagnostics.draw(one_run.read(of.folders[index]))


def _charts_of_a_run(run: OneRun) -> Iterator[Chart]:
    yield learning_curve.chart(run)
    yield diagnostics.draw(run)
    for telemetry in (gradient_dynamics, adam_moments, tensor_gradients):
        yield telemetry.draw_run(run)


def _save(charts: Sequence[Chart], out: epath.Path) -> Iterator[str]:
    """Writes the files of the charts that have a figure, and gives their sections of the page."""
    for chart in charts:
        if chart.figure is None:
            continue
        if chart.numbers is not None:
            (out / f"{chart.name}.csv").write_text(chart.numbers.to_csv(index=False))
        for ending in ("png", "svg"):
            buffer = io.BytesIO()
            # The same runs give the same files.
            with matplotlib.rc_context({"svg.hashsalt": chart.name}):
                date = {"Date": None} if ending == "svg" else None
                chart.figure.savefig(buffer, format=ending, dpi=150, metadata=date)
            (out / f"{chart.name}.{ending}").write_bytes(buffer.getvalue())
        yield page.chart_section(chart)


def _overview(of: Study) -> str:
    ended = of.table["ended"]
    early = of.table["stopped_early"].notna().sum()
    counts = {"done": (ended == DONE).sum(), "diverged": (ended == DIVERGED).sum(), "not ended": ended.isna().sum()}
    text = f"{len(ended)} run{'s' if len(ended) > 1 else ''}: "
    text += ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    text += f"; {early} stopped early, before {'its' if early == 1 else 'their'} last step." if early else "."
    more = " Diagnostics are of one run an intervention; <code>gpicl report RUN_FOLDER</code> draws those of any run."
    more = more if len(ended) > 1 else ""
    return (
        f'<p>{text} Their numbers: <a href="runs.csv">runs.csv</a>; those of all evaluations: '
        f'<a href="evaluations.csv">evaluations.csv</a>.{more}</p>'
    )
