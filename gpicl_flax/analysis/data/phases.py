"""The phases that the runs of a table end in, and the behaviours that they have learned.

The paper distinguishes three behaviours by the number of tasks: runs memorise tasks, or identify them, or learn any
task.
"""

import pandas as pd

from gpicl_flax.analysis.data import runs
from gpicl_flax.records import phase

MEMORIZATION, IDENTIFICATION, GENERAL = BEHAVIOURS = (
    "task memorization",
    "task identification",
    "general learning to learn",
)
CAVEAT = (
    "Where a bias or a curriculum makes the training tasks easier, Overfit says no more than that their loss fell "
    "without that gain."
)


def phases(table: pd.DataFrame, *, loss_cut: float | None = None, gain_cut: float = phase.GAIN_CUT) -> pd.Series:
    """Returns the phase of each run of a table; missing where the run does not determine it.

    It is that of `records.phase`, given the lowest average of the training loss, and the gain of the last evaluation on
    unseen tasks of the base dataset trained on.

    Args:
      table: the runs.
      loss_cut: a loss; None: the threshold of the plateau, 2.2 nats for 10 classes.
      gain_cut: a difference of accuracies, or for numbers a share of the squared error by chance.
    """
    found = table.apply(_phase, axis=1, loss_cut=loss_cut, gain_cut=gain_cut)  # pyright: ignore[reportCallIssue, reportArgumentType]  its stubs allow no None
    return found.astype(object)


def _phase(run: pd.Series, loss_cut: float | None, gain_cut: float) -> str | None:
    if loss_cut is None:
        criteria = runs.criteria(run)
        loss_cut = criteria and criteria.threshold
    gain = runs.of_its_own_dataset(run, "unseen_gain")
    if loss_cut is None or pd.isna(run["lowest_loss_ema"]):
        return None
    return phase.classify(run["lowest_loss_ema"] < loss_cut, gain, run["num_tasks"], gain_cut=gain_cut)


def behaviour(
    *, seen_last: float, seen_gain: float, unseen_gain: float, chance: float, cut: float = phase.GAIN_CUT
) -> str | None:
    """Returns what a run has learned (Table 1 and Fig 4 of the paper), by accuracies on the base dataset trained on.

    General learning to learn: on unseen tasks the last prediction is at least `cut` more accurate than the first. Task
    identification: this holds on seen tasks only. Task memorization: it holds on neither, but the accuracy on seen
    tasks is `cut` above chance. None: nothing of this holds, as on the plateau, or a number that decides is NaN.
    """
    if unseen_gain >= cut:
        return GENERAL
    if seen_gain >= cut and unseen_gain < cut:
        return IDENTIFICATION
    return MEMORIZATION if seen_gain < cut <= seen_last - chance and unseen_gain < cut else None
