"""The phases that the runs of a table end in."""

import pandas as pd

from gpicl_flax.analysis import runs
from gpicl_flax.records import phase, plateau

CAVEAT = (
    "Where a bias or a curriculum makes the training tasks easier, Overfit says no more than that their loss fell without "
    "that gain."
)


def phases(table: pd.DataFrame, *, loss_cut: float | None = None, gain_cut: float = phase.GAIN_CUT) -> pd.Series:
    """The phase of each run of a table of runs; missing where the run does not tell.

    It is that of `records.phase`, with the lowest average of the training loss, and with the gain of the last evaluation on
    unseen tasks of the base dataset trained on.

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
    return phase.of(run["lowest_loss_ema"] < loss_cut, gain, run["num_tasks"], gain_cut=gain_cut)
