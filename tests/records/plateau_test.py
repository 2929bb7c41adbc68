import math

import pytest

from gpicl_flax.records import plateau


def test_the_threshold_is_2_2_for_ten_classes_and_moves_with_chance():
    assert plateau.threshold(10) == pytest.approx(2.2)
    assert plateau.threshold(5) - math.log(5) == pytest.approx(2.2 - math.log(10))


def test_the_plateau_is_left_at_the_first_step_under_the_threshold():
    assert plateau.plateau_exit_step([10, 20, 30, 40], [2.3, 2.21, 2.19, 2.25], plateau.threshold(10)) == 30


def test_a_run_that_never_gets_under_the_threshold_is_still_on_it():
    assert plateau.plateau_exit_step([10, 20], [2.3, 2.2000001], plateau.threshold(10)) is None
    assert plateau.plateau_exit_step([], [], plateau.threshold(10)) is None


def test_by_unseen_tasks_it_is_left_where_the_mean_of_the_last_three_losses_is_under_the_threshold():
    def left_at(losses):
        steps = [100 * (index + 1) for index in range(len(losses))]
        return plateau.unseen_plateau_exit_step(steps, losses, plateau.threshold(10))

    assert left_at([2.3, 2.3, 2.1, 2.19, 2.1]) == 400  # 2.3, 2.1 and 2.19 have the mean 2.197
    assert left_at([2.3, 2.3, 1.95, 2.3, 2.3]) == 300
    assert left_at([2.1]) == 100 and left_at([2.25, 2.1]) == 200  # at the start, of those that there are
    assert left_at([2.3, 2.3, 2.3, 2.1, 2.3]) is None and left_at([]) is None
    assert left_at([2.3, math.nan, 2.1, math.inf, 2.1]) == 500 and left_at([math.nan]) is None
