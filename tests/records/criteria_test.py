import math

import pytest

from gpicl_flax.errors import Damaged
from gpicl_flax.records.criteria import Criteria, curve_gain
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.tasks.targets import Classes, Normals, Numbers


def test_classes_are_judged_as_ever():
    found = Criteria.required(Classes(10).as_run_info())
    assert found.threshold == pytest.approx(2.2) and found.chance_loss == math.log(10)
    assert found.score == "accuracy" and found.gain(0.5) == pytest.approx(0.4) == found.gain(0.6, 0.2)


def test_a_squared_error_leaves_the_plateau_below_a_share_of_chance():
    found = Criteria.required(Numbers(variance=8.25).as_run_info())
    assert found.threshold == pytest.approx(0.955 * 8.25) and found.score == "loss"
    assert found.gain(8.25) == 0 and found.gain(2.0625) == pytest.approx(0.75) == found.gain(1.0, 7.1875)


def test_the_same_predictions_leave_the_plateau_under_the_squared_error_and_the_likelihood():
    for variance in (0.01, 1.0, 8.25):  # whose likelihood can be negative
        error = Criteria.required(Numbers(variance=variance).as_run_info())
        nats = Criteria.required(Normals(variance=variance).as_run_info())
        best = (math.log(2 * math.pi * error.threshold) + 1) / 2  # of a normal with that error
        assert nats.threshold == pytest.approx(best) and nats.threshold < nats.chance_loss
        assert nats.score == "squared_error" and nats.gain(variance / 2) == pytest.approx(0.5)


def test_what_does_not_say_its_targets_is_not_judged():
    assert Criteria.from_run_info({}) is None and Criteria.from_run_info({"num_classes": "ten"}) is None
    with pytest.raises(Damaged, match="does not say what the targets are"):
        Criteria.required({})


def test_a_tracker_follows_the_errors_of_numbers():
    tracker = PlateauTracker(None, 64, targets=Numbers(variance=2.0).as_run_info()["targets"])
    tracker.follow(10, 1.95, None)
    assert tracker.exit_step is None and tracker.phase == "Plateau"
    tracker.follow(20, 1.9, None)
    assert tracker.exit_step == 20 and tracker.phase is None
    tracker.follow(30, 1.5, {"unseen_loss": 2.1, "unseen_loss_last": 1.9})
    assert tracker.phase == "Overfit" and tracker.gain == pytest.approx(0.05)
    tracker.follow(40, 1.0, {"unseen_loss": 1.0, "unseen_loss_last": 1.0})
    assert tracker.phase == "Generalize" and tracker.unseen_exit_step == 40


def test_a_single_position_that_counts_is_judged_by_chance():
    criteria = Criteria.from_run_info({"num_classes": 4})
    assert criteria is not None
    curve = {"accuracy": [0.75], "positions": [8]}
    assert curve_gain(curve, criteria) == pytest.approx(0.5)
    assert curve_gain({"accuracy": [0.75]}, criteria) == 0  # sequences of one example
    assert curve_gain(curve | {"accuracy": [0.3, 0.75], "positions": [4, 8]}, criteria) == pytest.approx(0.45)
