"""A report of a sweep or of one run: every figure that its runs allow, their numbers, and a page that shows them."""

import dataclasses
import io
from collections.abc import Iterator, Sequence

import matplotlib
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gpicl_flax.analysis.data import phases, selections
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study, load
from gpicl_flax.analysis.figures import diagnostics, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.report import page, tables
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder
from gpicl_flax.records.selection_rule import SELECT

_NAMED = 6  # how many runs that lack the same thing are named


def write(workdir: epath.PathLike, out: epath.PathLike | None = None, *, after_drop: int | None = None) -> epath.Path:
    """Writes a report of the runs in `workdir` into the folder `out` and returns the path of its page, index.html.

    The folder also gets each figure as PNG and SVG, its data as CSV, and runs.csv and evaluations.csv with all runs.

    Args:
      workdir: folder of a sweep, of one run, or of the tables of either.
      out: None: the folder report in `workdir`. Files of the same names are replaced.
      after_drop: how many steps after their drop runs are compared; None: a quarter of the steps of the
        shortest intervention.

    Raises:
      UsageError: there is no run, or the tables are damaged.
    """
    study = dataclasses.replace(load(workdir), after_drop=after_drop)
    out = epath.Path(out) if out is not None else RunFolder(workdir).path / "report"
    out.mkdir(parents=True, exist_ok=True)
    (out / "runs.csv").write_text(study.table.assign(phase=phases.phases(study.table)).to_csv(index=False))
    (out / "evaluations.csv").write_text(study.evaluations.to_csv(index=False))
    sections = [_overview(study)]
    # A single run has its own figures. A sweep has those of the paper, which compare with published values, and then
    # those that compare interventions.
    if study.single:
        charts = charts_of_run(study.run(0))
        sections += _save(charts, out)
    else:
        charts, compared = (
            list(_drawn(study, registry.paper_figures())),
            [*_drawn(study, registry.comparisons()), *_diagnostics(study)],
        )
        sections += [tables.insights(study).html, tables.published_values(charts).html, *_save(charts, out)]
        sections += [
            table.html for table in (*tables.accuracies(study), *tables.plateaus(study), *tables.phases(study))
        ]
        sections += _save(compared, out)
        charts += compared
    lacking = [f"{chart.heading}: {chart.caption}" for chart in charts if chart.figure is None]
    if lacking:
        sections.append(page.list_section("Not drawn, and what they need", lacking))
    gaps = study.table[study.table["gaps"] != ""]
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


def charts_of_run(run: OneRun) -> list[Chart]:
    """Returns the charts of a single run."""
    return [entry.draw(run) for entry in registry.run_figures()]


def _drawn(study: Study, entries: Sequence[registry.Entry[registry.DrawStudy]]) -> Iterator[Chart]:
    for _, draw, column, most in entries:
        parts = study.parts(column, most) if most else [study]
        if len(parts) > 1 and len(study.interventions) < 2:  # there would be many figures without any comparison
            chart = draw(parts[0])
            yield Chart(chart.name, chart.title, "Needs at least two interventions to compare.")
            continue
        for number, part in enumerate(parts, 1):
            chart = draw(part)
            if len(parts) > 1:
                title = f"{chart.title} ({number} of {len(parts)})"
                chart = dataclasses.replace(chart, name=f"{chart.name}_{number}", title=title)
            yield chart


def _diagnostics(study: Study) -> Iterator[Chart]:
    diagnosed = study.table[study.table["unseen_plateau_steps"].notna()].dropna(subset=["panel", "intervention"])
    if diagnosed.empty:
        yield Chart("diagnostics", "Diagnostics", "No run has diagnostics.")
    one_each = diagnosed.sort_values(["panel", "seed"], kind="stable").drop_duplicates("intervention")
    for index in sorted(
        one_each.index, key=lambda index: study.interventions.index(study.table["intervention"][index])
    ):
        yield diagnostics.draw(study.run(index))


def _save(charts: Sequence[Chart], out: epath.Path) -> Iterator[str]:
    """Writes the files of the charts that have a figure, and yields their sections of the page."""
    for chart in charts:
        if chart.figure is None:
            continue
        if chart.numbers is not None:
            (out / f"{chart.name}.csv").write_text(chart.numbers.to_csv(index=False))
        for ending, data in _pictures(chart.name, chart.figure).items():
            (out / f"{chart.name}.{ending}").write_bytes(data)
        yield page.chart_section(chart)


def _pictures(name: str, figure: Figure) -> dict[str, bytes]:
    """Returns a figure as PNG and SVG, by their endings. The same runs give the same files."""
    # A figure is laid out once, and drawn once for each file. `Figure.savefig` would lay it out and draw it twice for
    # each, and figures take most of the time of a report.
    figure.set_dpi(150)
    png, svg = io.BytesIO(), io.StringIO()
    FigureCanvasAgg(figure).print_png(png)
    figure.set_layout_engine("none")
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue().encode()}


def _overview(study: Study) -> str:
    ended = study.table["ended"]
    early = study.table["stopped_early"].notna().sum()
    counts = {"done": (ended == DONE).sum(), "diverged": (ended == DIVERGED).sum(), "not ended": ended.isna().sum()}
    text = f"{len(ended)} run{'s' if len(ended) > 1 else ''}: "
    text += ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    text += f"; {early} stopped early, before {'its' if early == 1 else 'their'} last step." if early else "."
    if len(study.trials):
        text += f" Besides, {len(study.trials)} runs chose their settings, on validation."
    elif selections.STAGE in study.table and (study.table[selections.STAGE] == SELECT).any():
        text += " These are the runs by which settings are chosen: what they are tested on is validation."
    more = " Diagnostics are of one run an intervention; <code>gpicl report RUN_FOLDER</code> draws those of any run."
    more = more if len(ended) > 1 else ""
    return (
        f'<p>{text} Their numbers: <a href="runs.csv">runs.csv</a>; those of all evaluations: '
        f'<a href="evaluations.csv">evaluations.csv</a>.{more}</p>'
    )
