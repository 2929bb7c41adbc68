"""The phases that a run can end in, as in the paper: it stands on its plateau, overfits its tasks, or generalizes.

And what runs have learned by their number of tasks, where the paper tells three phases as well: they memorise tasks, or
identify them, or learn any.
"""

import math

import pandas as pd

from gpicl_flax.analysis import runs
from gpicl_flax.records import plateau

PLATEAU, OVERFIT, GENERALIZE = PHASES = ("Plateau", "Overfit", "Generalize")
GAIN_CUT = 0.2
MEMORIZATION, IDENTIFICATION, GENERAL = BEHAVIOURS = (
    "task memorization",
    "task identification",
    "general learning to learn",
)
CAVEAT = (
    "Where a bias or a curriculum makes the training tasks easier, Overfit says no more than that their loss fell without "
    "that gain."
)


def phases(table: pd.DataFrame, *, loss_cut: float | None = None, gain_cut: float = GAIN_CUT) -> pd.Series:
    """The phase of each run of a table of runs; missing where the run does not tell.

    Plateau: the average of the training loss was never under `loss_cut`. Otherwise Generalize, if on unseen tasks of the base
    dataset trained on the accuracy at the last position of the last evaluation is at least `gain_cut` above that at the
    first, or else Overfit; but where the number of tasks is unbounded there is nothing to overfit, and a loss that fell for
    another reason, such as a curriculum that starts with few classes, is no departure: Plateau.

    Args:
      table: the runs.
      loss_cut: in nats; None: the threshold of the plateau, 2.2 for 10 classes.
      gain_cut: a difference of accuracies.
    """
    return table.apply(_phase, axis=1, loss_cut=loss_cut, gain_cut=gain_cut).astype(object)


def _phase(run: pd.Series, loss_cut: float | None, gain_cut: float) -> str | None:
    if loss_cut is None and pd.notna(run["num_classes"]):
        loss_cut = plateau.threshold(int(run["num_classes"]))
    gain = runs.of_its_own_dataset(run, "unseen_gain")
    if loss_cut is None or pd.isna(run["lowest_loss_ema"]):
        return None
    if run["lowest_loss_ema"] >= loss_cut:
        return PLATEAU
    if pd.isna(gain):
        return None
    if gain >= gain_cut:
        return GENERALIZE
    return PLATEAU if math.isinf(run["num_tasks"]) else OVERFIT


def behaviour(
    *, seen_last: float, seen_gain: float, unseen_gain: float, chance: float, cut: float = GAIN_CUT
) -> str | None:
    """What was learned (Table 1 and Fig 4 of the paper), from accuracies on the base dataset trained on.

    General learning to learn: on unseen tasks the last prediction is at least `cut` more accurate than the first. Task
    identification: on seen tasks only. Task memorization: on neither, but seen tasks are known, `cut` above chance. None:
    nothing of this, as on the plateau, or a number that decides is NaN.
    """
    if unseen_gain >= cut:
        return GENERAL
    if seen_gain >= cut and unseen_gain < cut:
        return IDENTIFICATION
    return MEMORIZATION if seen_gain < cut <= seen_last - chance and unseen_gain < cut else None
