"""The figures of a report. Each module of this room registers its own figures, with their places on the page."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from gpicl_flax.analysis import figures
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures.chart import Chart

DrawStudy = Callable[[Study], Chart]
DrawRun = Callable[[OneRun], Chart]


class Entry[Draw](NamedTuple):
    """A chart of the page.

    Attributes:
      place: the place on the page; charts are shown from the lowest to the highest.
      draw: draws it.
      column: a column of the study's table. One figure shows at most `most` of its values, so many values need several
        figures.
      most: see `column`; 0: one figure shows all.
    """

    place: float
    draw: Draw
    column: str = ""
    most: int = 0


_PAPER: list[Entry[DrawStudy]] = []
_COMPARISONS: list[Entry[DrawStudy]] = []
_RUN: list[Entry[DrawRun]] = []


def register_paper_figure(place: float) -> Callable[[DrawStudy], DrawStudy]:
    """Registers a figure of the paper. Its place is its number there; a table is placed after the figure before it."""
    return _register(_PAPER, place)


def register_comparison(place: float, column: str, most: int) -> Callable[[DrawStudy], DrawStudy]:
    """Registers a figure beyond the paper, which compares interventions."""
    return _register(_COMPARISONS, place, column, most)


def register_run_figure(place: float) -> Callable[[DrawRun], DrawRun]:
    """Registers a figure of a single run."""
    return _register(_RUN, place)


def paper_figures() -> list[Entry[DrawStudy]]:
    """Returns the figures of the paper, in their order there."""
    return _sorted(_PAPER)


def comparisons() -> list[Entry[DrawStudy]]:
    """Returns the figures that compare interventions, in the order of the page."""
    return _sorted(_COMPARISONS)


def run_figures() -> list[Entry[DrawRun]]:
    """Returns the figures of a single run, in the order of the page."""
    return _sorted(_RUN)


def _register(entries: list, place: float, *parts):
    def register(draw):
        entries.append(Entry(place, draw, *parts))
        return draw

    return register


def _sorted(entries: list) -> list:
    for module in pkgutil.iter_modules(figures.__path__):  # importing a module registers its figures
        importlib.import_module(f"{figures.__name__}.{module.name}")
    return sorted(entries, key=lambda entry: entry.place)
