"""The phases of a run, as in the paper: it is on its plateau, overfits its tasks, or generalizes (Fig 2).

Training and analysis share this definition. The paper shows the phases without thresholds; these are ours.
"""

import math

PLATEAU, OVERFIT, GENERALIZE = PHASES = ("Plateau", "Overfit", "Generalize")
GAIN_CUT = 0.2


def classify(left: bool, gain: float | None, num_tasks: float, *, gain_cut: float = GAIN_CUT) -> str | None:
    """Returns the phase of a run; None if it is not known.

    Plateau: the run has not left it. Otherwise Generalize, if the gain is at least `gain_cut`, or else Overfit. With an
    unbounded number of tasks there is nothing to overfit. Then a loss that fell for another reason, such as a
    curriculum that starts with few classes, does not count as leaving the plateau: Plateau.

    Args:
      left: whether the average of the training loss has been below the threshold of the plateau.
      gain: what is gained from the first to the last position of sequences of unseen tasks, see `Criteria.gain`; None
        or NaN: not measured.
      num_tasks: the number of tasks that it trains on; inf: unbounded.
      gain_cut: a difference of accuracies, or for numbers a share of the squared error by chance.
    """
    if not left:
        return PLATEAU
    if gain is None or math.isnan(gain):
        return None
    if gain >= gain_cut:
        return GENERALIZE
    return PLATEAU if math.isinf(num_tasks) else OVERFIT
