"""The loss plateau. Training and analysis share this definition.

By its training loss, a run is on its plateau until the exponential moving average of that loss falls below a threshold
slightly below chance: for C classes ln C, for numbers their variance. A run whose average rises again has still left
it. Until EMA_STEPS steps have been made, the average is the plain mean of the losses so far, so it does not depend on a
start value. The paper shows plateaus (Fig 7, 8) without defining their length; these values are ours.

By unseen tasks, it is on its plateau until the mean of its last UNSEEN_MEASUREMENTS losses on a fixed batch of unseen
tasks falls below the same threshold. Memorising tasks reduces the first loss but not the second. Changes to the
training tasks change only the first loss.
"""

import math
from collections.abc import Sequence

EMA_STEPS = 200  # time constant of the average, in training steps
UNSEEN_MEASUREMENTS = 3  # fewer at the start, when there are not as many yet
MARGIN = math.log(10) - 2.2  # nats below chance; for 10 classes the threshold is 2.2
SHARE = 0.955  # of the squared error by chance; 2.2 nats have the same share of ln 10


def threshold(num_classes: int) -> float:
    """Returns the averaged loss, in nats, below which a run has left its plateau."""
    return threshold_of_classes(math.log(num_classes))


def threshold_of_classes(chance_loss: float) -> float:
    """Returns the same for families that differ in their number of classes, given the mean of their chance losses."""
    return chance_loss - MARGIN


def threshold_of_numbers(chance_loss: float, *, in_nats: bool) -> float:
    """Returns the averaged loss below which a run that predicts numbers has left its plateau.

    A likelihood in nats has no natural zero, so a share of it would mean nothing. Its threshold is where a normal
    prediction is whose squared error is SHARE of that by chance, and which knows that: lower by ln(SHARE) / 2. So the
    same predictions leave the plateau under both losses.

    Args:
      chance_loss: the squared error, or the negative log likelihood, of the best prediction without learning.
      in_nats: whether it is the latter.
    """
    return chance_loss + math.log(SHARE) / 2 if in_nats else SHARE * chance_loss


def plateau_exit_step(steps: Sequence[int], emas: Sequence[float], cut: float) -> int | None:
    """Returns the first logged step whose average is below the threshold, or None if the run ends on its plateau."""
    return next((step for step, ema in zip(steps, emas, strict=True) if ema < cut), None)


def unseen_plateau_exit_step(steps: Sequence[int], losses: Sequence[float], cut: float) -> int | None:
    """Returns the first step at which the mean of the last losses on unseen tasks is below the threshold, or None.

    Measurements that are not finite are skipped.
    """
    finite = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
    steps, losses = [step for step, _ in finite], [loss for _, loss in finite]
    return plateau_exit_step(steps, [mean_of_last(losses[: end + 1]) for end in range(len(losses))], cut)


def mean_of_last(losses: Sequence[float]) -> float:
    """Returns the mean of the last UNSEEN_MEASUREMENTS losses, or of all if there are fewer; NaN: there is none."""
    last = losses[-UNSEEN_MEASUREMENTS:]
    return sum(last) / len(last) if last else math.nan
