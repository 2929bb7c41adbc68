import math

import numpy as np
import pytest
import scipy.stats

from gpicl_flax.analysis import intervals


def test_the_interval_of_a_mean_is_that_of_the_t_test():
    values = np.array([0.3, 0.5, 0.4, 0.7])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.of_mean(values) == pytest.approx((0.475, expected.low, expected.high))


def test_one_value_has_no_interval():
    mean, low, high = intervals.of_mean([0.3])
    assert mean == 0.3 and math.isnan(low) and math.isnan(high)
