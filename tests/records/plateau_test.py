import math

import pytest

from gpicl_flax.records import plateau


def test_the_threshold_is_2_2_for_ten_classes_and_moves_with_chance():
    assert plateau.threshold(10) == pytest.approx(2.2)
    assert plateau.threshold(5) - math.log(5) == pytest.approx(2.2 - math.log(10))


def test_the_plateau_is_left_at_the_first_step_under_the_threshold():
    assert plateau.left_at([10, 20, 30, 40], [2.3, 2.21, 2.19, 2.25], num_classes=10) == 30


def test_a_run_that_never_gets_under_the_threshold_is_still_on_it():
    assert plateau.left_at([10, 20], [2.3, 2.2000001], num_classes=10) is None
    assert plateau.left_at([], [], num_classes=10) is None
