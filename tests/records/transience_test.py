import math

import pytest

from gpicl_flax.records.transience import transience

STEPS = [100, 200, 300, 400, 500, 600]


def found(*accuracies, chance=0.1):
    return transience(STEPS[: len(accuracies)], accuracies, chance)


def test_it_is_lost_where_half_of_the_rise_is_gone_for_good():
    # From a peak of 0.9 over a chance of 0.1, half of the rise is gone at 0.5.
    assert found(0.1, 0.9, 0.6, 0.5, 0.3, 0.2) == (200, 400)
    assert found(0.1, 0.9, 0.3, 0.6, 0.4, 0.2) == (200, 500)  # it comes back once
    assert found(0.9, 0.9, 0.2) == (100, 300)  # the first of equal peaks


@pytest.mark.parametrize(
    "accuracies",
    [
        (),
        (0.1, 0.5, 0.9),  # never lost
        (0.1, 0.9, 0.3, 0.3, 0.8, 0.8),  # lost and found again
        (0.1, 0.9, 0.6, 0.6),  # less than half
        (0.1, 0.19, 0.1, 0.1),  # never learned: a rise of less than 0.1
        (math.nan, math.nan),
    ],
)
def test_it_is_not_lost_otherwise(accuracies):
    assert found(*accuracies) is None


def test_measurements_that_are_not_finite_are_skipped():
    assert found(0.1, 0.9, math.nan, 0.2, math.nan, 0.1) == (200, 400)


def test_the_rise_is_over_chance():
    assert found(0.5, 0.62, 0.55, chance=0.5) == (200, 300)
    assert found(0.5, 0.59, 0.5, chance=0.5) is None
