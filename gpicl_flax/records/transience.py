"""The transience of learning in context: it emerges, and is lost again (Singh et al. 2023, arXiv 2311.08360).

They show it without defining when; these values are ours. Training and analysis share this definition. It is an event
with a time, as the end of the plateau is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

MIN_RISE = 0.1  # of the accuracy over chance; less is no learning in context that could be lost
SHARE = 0.5  # of that rise; a run that has lost it has lost its learning in context


class Transience(NamedTuple):
    """The step at which the accuracy in context is highest, and the first from which it has fallen to the end."""

    peak_step: int
    step: int


def transience(steps: Sequence[int], accuracies: Sequence[float], chance: float) -> Transience | None:
    """Returns when learning in context was lost, or None if it was not, or never rose by MIN_RISE over chance.

    It is lost at the first step after the peak from which the accuracy is lower than the peak by at least SHARE of the
    rise of the peak over chance, there and at every later step. Measurements that are not finite are skipped.

    Args:
      steps: those of the measurements, ascending.
      accuracies: the accuracies in context.
      chance: the accuracy before learning, 1/C.
    """
    known = [(step, x) for step, x in zip(steps, accuracies, strict=True) if math.isfinite(x)]
    if not known:
        return None
    peak_step, peak = max(known, key=lambda row: row[1])  # the first, if several are equally high
    if peak - chance < MIN_RISE:
        return None
    lost = None
    for step, accuracy in reversed(known):
        if step == peak_step or peak - accuracy < SHARE * (peak - chance):
            break
        lost = step
    return None if lost is None else Transience(peak_step, lost)
