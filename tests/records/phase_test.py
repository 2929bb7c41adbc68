import math

import pytest

from gpicl_flax.records import phase
from gpicl_flax.records.plateau_tracker import PlateauTracker


@pytest.mark.parametrize(
    ("left", "gain", "num_tasks", "expected"),
    [
        (False, 0.9, 64, "Plateau"),
        (False, None, 64, "Plateau"),
        (True, 0.2, 64, "Generalize"),
        (True, 0.2, math.inf, "Generalize"),
        (True, 0.19, 64, "Overfit"),
        (True, 0.19, math.inf, "Plateau"),
        (True, None, 64, None),
        (True, math.nan, math.inf, None),
    ],
)
def test_a_run_stands_on_its_plateau_overfits_or_generalizes(left, gain, num_tasks, expected):
    assert phase.classify(left, gain, num_tasks) == expected


def test_a_course_knows_a_phase_once_it_is_diagnosed_after_the_plateau():
    tracker = PlateauTracker(num_classes=10, num_tasks=64)

    def after(step, loss, accuracy=None):
        diagnosed = None if accuracy is None else {"unseen_loss": 2.3, "unseen_accuracy_last": accuracy}
        tracker.follow(step, loss, diagnosed)
        return tracker.exit_step, tracker.phase

    assert after(10, 2.3) == (None, "Plateau")
    assert after(20, 2.25, 0.1) == (None, "Plateau")
    assert after(30, 2.1) == (30, None)
    assert after(40, 2.0, 0.25) == (30, "Overfit")
    assert after(50, 2.3) == (30, "Overfit")  # it rises again, and has left all the same
    assert after(60, 1.9, 0.31) == (30, "Generalize")
    unbounded = PlateauTracker(10, None, exit_step=30, gain=0.1)
    assert unbounded.phase == "Plateau"
