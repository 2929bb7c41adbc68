"""A report of a sweep or of one run: every figure that its runs allow, their numbers, and a page that shows them."""

import dataclasses

from etils import epath

from gpicl_flax.analysis.data import phases, selections
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study, load
from gpicl_flax.analysis.figures import registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.report import drawing, page, tables
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder
from gpicl_flax.records.selection_rule import SELECT
from gpicl_flax.runtime.processes import fastest

_NAMED = 6  # how many runs that lack the same thing are named


def write(
    workdir: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    after_drop: int | None = None,
    processes: int | None = 1,
) -> epath.Path:
    """Writes a report of the runs in `workdir` into the folder `out` and returns the path of its page, index.html.

    The folder also gets each figure as PNG and SVG, its data as CSV, and runs.csv and evaluations.csv with all runs.

    Args:
      workdir: folder of a sweep, of one run, or of the tables of either.
      out: None: the folder report in `workdir`. Files of the same names are replaced.
      after_drop: how many steps after their drop runs are compared; None: a quarter of the steps of the
        shortest intervention.
      processes: how many read and draw, see `runtime.processes.executor`; None: as many as are fastest.

    Raises:
      UsageError: there is no run, or the tables are damaged.
    """
    study = dataclasses.replace(load(workdir, processes, drawing.__name__), after_drop=after_drop)
    processes = processes or fastest(len(study.table))
    out = epath.Path(out) if out is not None else RunFolder(workdir).path / "report"
    out.mkdir(parents=True, exist_ok=True)
    (out / "runs.csv").write_text(study.table.assign(phase=phases.phases(study.table)).to_csv(index=False))
    (out / "evaluations.csv").write_text(study.evaluations.to_csv(index=False))
    sections = [_overview(study)]
    # A single run has its own figures. A sweep has those of the paper, which compare with published values, and then
    # those that compare interventions.
    if study.single:
        drawn = [drawing.save(chart, out) for chart in charts_of_run(study.run(0))]
        sections += [one.section for one in drawn if one.section]
    else:
        with drawing.saver(study, out, processes) as save:
            paper = save(drawing.jobs(study, registry.paper_figures()))
            compared = save([*drawing.jobs(study, registry.comparisons()), *drawing.diagnostics_jobs(study)])
            insights = tables.insights(study).html  # while other processes draw
            paper, compared = list(paper), list(compared)
        sections += [insights, tables.published_values([one.chart for one in paper]).html]
        sections += [one.section for one in paper if one.section]
        sections += [
            table.html for table in (*tables.accuracies(study), *tables.plateaus(study), *tables.phases(study))
        ]
        sections += [one.section for one in compared if one.section]
        drawn = [*paper, *compared]
    lacking = [f"{one.chart.heading}: {one.chart.caption}" for one in drawn if one.section is None]
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
