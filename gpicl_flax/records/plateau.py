"""The loss plateau: one definition, used while a run trains and when it is analysed.

By its training loss, a run is on its plateau until the exponential moving average of that loss falls under a threshold
a little below chance, ln C; one whose average rises again has left it all the same. Until EMA_STEPS steps have been
made, the average is the plain mean of the losses so far, so it does not depend on a start value. The paper shows
plateaus (Fig 7, 8) without defining their length; these values are ours.

By unseen tasks, it is on its plateau until the mean of its last UNSEEN_MEASUREMENTS losses on a fixed batch of unseen
tasks falls under the same threshold. Tasks that a run memorises bring down the first loss and not the second, and what
changes the tasks of training changes only the first.
"""

import math
from collections.abc import Sequence

EMA_STEPS = 200  # time constant of the average, in training steps
UNSEEN_MEASUREMENTS = 3  # at the start: as many as there are
MARGIN = math.log(10) - 2.2  # below chance; for 10 classes the threshold is 2.2


def threshold(num_classes: int) -> float:
    """The averaged loss, in nats, under which the plateau has been left."""
    return math.log(num_classes) - MARGIN


def plateau_exit_step(steps: Sequence[int], emas: Sequence[float], num_classes: int) -> int | None:
    """The first logged step whose average is under the threshold, or None if the run ends on its plateau."""
    cut = threshold(num_classes)
    return next((step for step, ema in zip(steps, emas, strict=True) if ema < cut), None)


def unseen_plateau_exit_step(steps: Sequence[int], losses: Sequence[float], num_classes: int) -> int | None:
    """The first step at which the mean of the last losses on unseen tasks is under the threshold, or None.

    Measurements that are not finite are passed over.
    """
    finite = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
    steps, losses = [step for step, _ in finite], [loss for _, loss in finite]
    return plateau_exit_step(steps, [mean_of_last(losses[: end + 1]) for end in range(len(losses))], num_classes)


def mean_of_last(losses: Sequence[float]) -> float:
    """The mean of the last UNSEEN_MEASUREMENTS losses, or of as many as there are; NaN: there is none."""
    last = losses[-UNSEEN_MEASUREMENTS:]
    return sum(last) / len(last) if last else math.nan
