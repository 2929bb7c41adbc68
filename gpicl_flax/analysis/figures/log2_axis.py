"""Axes of powers of two: numbers of tasks, which may be unbounded, batch sizes and sizes of models."""

import math
from collections.abc import Iterable, Sequence

from matplotlib.axis import Axis

from gpicl_flax.analysis.data import groups


def places_of(values: Iterable[float]) -> dict[float, float]:
    """Returns the place of each number on an axis: its binary logarithm.

    0 is two octaves before all others; inf, which means unbounded, comes after them.
    """
    values = set(values)
    places = {value: math.log2(value) for value in sorted(values) if 0 < value < math.inf}
    if 0 in values:
        places = {0: min(places.values(), default=2) - 2} | places
    if math.inf in values:
        first, last = min(places.values(), default=0), max(places.values(), default=0)
        gap = 1.2 * (last - first) / max(len(places) - 1, 1)
        places[math.inf] = last + max(gap, (last - first) / 6, 1)
    return places


def name(axis: Axis, places: dict[float, float], most: int = 9, *, powers: bool = True) -> None:
    """Names about `most` of the numbers at their places, as `text` or, without `powers`, in full."""
    values = list(places)
    every = -(-len(values) // most)
    shown = [value for index, value in enumerate(values) if math.isinf(value) or index % every == 0]
    axis.set_ticks([places[value] for value in shown], [text(x) if powers else f"{x:,.0f}" for x in shown])


def name_powers(axis: Axis, places: dict[float, float], most: int = 7) -> None:
    """Names about `most` whole powers of two between the places of numbers that are not powers themselves.

    0 is also named if it is one of the numbers.
    """
    known = [place for value, place in places.items() if value]
    first, last = math.ceil(min(known)), math.floor(max(known))
    powers = range(first, last + 1, max(1, round((last - first) / most)))
    zero = {places[0]: "0"} if 0 in places else {}
    names = zero | {power: f"$2^{{{power}}}$" for power in powers}
    axis.set_ticks(list(names), list(names.values()))


def name_cells(axis: Axis, values: Sequence[float], most: int = 13, *, powers: bool = True) -> None:
    """Names about `most` of the numbers at the middles of cells of width 1, which are side by side from 0 on."""
    name(axis, {value: index + 0.5 for index, value in enumerate(values)}, most, powers=powers)
    axis.set_tick_params(length=0)


def text(value: float) -> str:
    """Returns a number as `groups.number`, with powers raised."""
    words = groups.number(value)
    return f"$2^{{{words[2:]}}}$" if words.startswith("2^") else words


def tasks(value: float) -> str:
    """Returns a number of tasks as `groups.tasks`, with powers raised."""
    return f"{text(value)} {'task' if value == 1 else 'tasks'}"
