"""The loss plateau: one definition, used while a run trains and when it is analysed.

A run is on its plateau until the exponential moving average of its training loss falls under a threshold a little
below chance, ln C. Until EMA_STEPS steps have been made, the average is the plain mean of the losses so far, so it does
not depend on a start value. The paper shows plateaus (Fig 7, 8) without defining their length; these values are ours.
"""

import math

EMA_STEPS = 200  # time constant of the average, in training steps
MARGIN = math.log(10) - 2.2  # below chance; for 10 classes the threshold is 2.2


def threshold(num_classes: int) -> float:
    """The averaged loss, in nats, under which the plateau has been left."""
    return math.log(num_classes) - MARGIN


def left_at(steps: list[int], emas: list[float], num_classes: int) -> int | None:
    """The first logged step whose average is under the threshold, or None if the run ends on its plateau."""
    cut = threshold(num_classes)
    return next((step for step, ema in zip(steps, emas, strict=True) if ema < cut), None)
