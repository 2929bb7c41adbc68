"""Draws the charts of a study and writes their files, in this process or in several."""

import contextlib
import dataclasses
import functools
import io
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import threadpoolctl
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import diagnostics, registry
from gpicl_flax.analysis.figures.chart import Chart
from gpicl_flax.analysis.report import page
from gpicl_flax.runtime.processes import executor

Job = Callable[[Study], Chart]  # draws one chart of a study; can be pickled


class Saved(NamedTuple):
    """A chart whose files were written.

    Attributes:
      chart: the chart without its figure and its numbers, which are large.
      section: its section of the page; None where there was no figure.
    """

    chart: Chart
    section: str | None


def jobs(study: Study, entries: Sequence[registry.Entry[registry.DrawStudy]]) -> list[Job]:
    """Returns what draws the charts of figures, in their order."""
    found = []
    for _, draw, column, most in entries:
        parts = study.parts(column, most) if most else [study]
        if len(parts) > 1 and len(study.interventions) < 2:  # there would be many figures without any comparison
            found.append(functools.partial(_refused, draw, column, most))
        elif len(parts) > 1:
            found += [functools.partial(_part, draw, column, most, number) for number in range(len(parts))]
        else:
            found.append(draw)
    return found


def diagnostics_jobs(study: Study) -> list[Job]:
    """Returns what draws the diagnostics of one run of each intervention, or says that there are none."""
    diagnosed = study.table[study.table["unseen_plateau_steps"].notna()].dropna(subset=["panel", "intervention"])
    if diagnosed.empty:
        return [_undiagnosed]
    one_each = diagnosed.sort_values(["panel", "seed"], kind="stable").drop_duplicates("intervention")
    order = sorted(one_each.index, key=lambda index: study.interventions.index(study.table["intervention"][index]))
    return [functools.partial(_diagnosed, index) for index in order]


def _refused(draw: registry.DrawStudy, column: str, most: int, study: Study) -> Chart:
    chart = draw(study.parts(column, most)[0])
    return Chart(chart.name, chart.title, "Needs at least two interventions to compare.")


def _part(draw: registry.DrawStudy, column: str, most: int, number: int, study: Study) -> Chart:
    parts = study.parts(column, most)
    chart = draw(parts[number])
    title = f"{chart.title} ({number + 1} of {len(parts)})"
    return dataclasses.replace(chart, name=f"{chart.name}_{number + 1}", title=title)


def _undiagnosed(study: Study) -> Chart:
    del study
    return Chart("diagnostics", "Diagnostics", "No run has diagnostics.")


def _diagnosed(label: int, study: Study) -> Chart:
    return diagnostics.draw(study.run(label))


@contextlib.contextmanager
def saver(study: Study, out: epath.Path, processes: int = 1) -> Iterator[Callable[[Iterable[Job]], Iterable[Saved]]]:
    """Gives a function that draws charts and writes their files into `out`, in the order of its jobs.

    Args:
      study: the study that is drawn.
      out: an existing folder.
      processes: how many draw, see `runtime.processes`; with more than one, they begin when the function is called.
    """
    if processes == 1:
        with _one_thread():
            yield lambda jobs: map(functools.partial(_save, study, out), jobs)
        return
    style: Any = dict(matplotlib.rcParams.copy())
    del style["backend"]  # reading it would choose one
    with executor(processes, __name__, _begin, (study, out, style)) as pool, _one_thread():
        yield lambda jobs: pool.map(_save_here, jobs)


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Keeps libraries from dividing small products among threads, which takes twice as long."""
    registry.paper_figures()  # imports all that draws, because only libraries that are loaded have limits
    return threadpoolctl.threadpool_limits(1)


_drawn_here: tuple[Study, epath.Path] | None = None  # in a process that draws


def _begin(study: Study, out: epath.Path, style: Any) -> None:
    global _drawn_here
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback of each process
    _drawn_here = study, out
    matplotlib.rcParams.update(style)
    _one_thread()


def _save_here(job: Job) -> Saved:
    assert _drawn_here is not None
    return _save(*_drawn_here, job)


def _save(study: Study, out: epath.Path, job: Job) -> Saved:
    return save(job(study), out)


def save(chart: Chart, out: epath.Path) -> Saved:
    """Writes the files of a chart into a folder, if it has a figure."""
    section = None
    if chart.figure is not None:
        if chart.numbers is not None:
            (out / f"{chart.name}.csv").write_text(chart.numbers.to_csv(index=False))
        for ending, data in _pictures(chart.name, chart.figure).items():
            (out / f"{chart.name}.{ending}").write_bytes(data)
        section = page.chart_section(chart)
    return Saved(dataclasses.replace(chart, figure=None, numbers=None), section)


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
