"""The phases of a run, as in the paper: it stands on its plateau, overfits its tasks, or generalizes (Fig 2).

One definition, used while a run trains and when it is analysed. The paper shows the phases without cuts; these are
ours.
"""

import math

PLATEAU, OVERFIT, GENERALIZE = PHASES = ("Plateau", "Overfit", "Generalize")
GAIN_CUT = 0.2


def classify(left: bool, gain: float | None, num_tasks: float, *, gain_cut: float = GAIN_CUT) -> str | None:
    """Returns the phase of a run; None where it is not known.

    Plateau: the run has not left it. Otherwise Generalize, if the gain is at least `gain_cut`, or else Overfit; but
    where the number of tasks is unbounded there is nothing to overfit, and a loss that fell for another reason, such as
    a curriculum that starts with few classes, is no departure: Plateau.

    Args:
      left: whether the average of the training loss has been under the threshold of the plateau.
      gain: of accuracy, from the first to the last position of sequences of unseen tasks; None or NaN: not measured.
      num_tasks: that it trains on; inf: unbounded.
    """
    if not left:
        return PLATEAU
    if gain is None or math.isnan(gain):
        return None
    if gain >= gain_cut:
        return GENERALIZE
    return PLATEAU if math.isinf(num_tasks) else OVERFIT
