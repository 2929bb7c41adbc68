import math

import numpy as np
import pytest
import scipy.stats

from gpicl_flax.analysis.stats import survival
from gpicl_flax.records.lengths import Lengths


def lengths(*steps):
    """Negative: the run ended on its plateau then."""
    return Lengths(np.abs(np.array(steps, float)), np.array(steps) > 0)


def test_the_curve_of_a_small_example_by_hand():
    # At 1 one of five leaves; one ends at 2; at 3 one of the three that are left; at 4 one of two, and one ends there.
    curve = survival.curve(lengths(1, -2, 3, 4, -4))
    np.testing.assert_array_equal(curve.steps, [1, 2, 3, 4])
    np.testing.assert_allclose(curve.share, [4 / 5, 4 / 5, 8 / 15, 4 / 15])
    # Greenwood's variance on the scale of log(-log): at 1 it is (1 / (5 * 4)) / log(4/5)^2.
    margin = 1.959964 * math.sqrt(1 / 20) / abs(math.log(0.8))
    assert curve.low[0] == pytest.approx(0.8 ** math.exp(margin), rel=1e-4)
    assert curve.high[0] == pytest.approx(0.8 ** math.exp(-margin), rel=1e-4)


def test_the_median_is_where_half_have_left():
    assert survival.median(lengths(10, 20, 30, 40, 50)).steps == 30
    assert survival.median(lengths(10, 20, 30, 40)).steps == 20
    assert survival.median(lengths(10, 20, -20, -20)).steps == 20
    assert survival.median(lengths(1, -2, 3, 4, -4)).steps == 4


def test_a_median_beyond_the_budget_is_infinite():
    median = survival.median(lengths(10, -90, -100, -100, -100))
    assert median.steps == median.high == math.inf
    assert (median.low, median.budget, median.runs, median.left) == (10, 100, 5, 1)


def test_intervals_of_the_median():
    few = survival.median(lengths(10, 20, 30, 40, 50))
    assert few.low == 10 and few.high == math.inf  # the upper end of the curve's interval at 40 is 0.58
    many = survival.median(lengths(*range(1, 41)))
    assert 10 < many.low < many.steps < many.high < 31
    none = survival.median(lengths(-100, -100))
    assert none.steps == math.inf and math.isnan(none.low) and math.isnan(none.high)
    one = survival.median(lengths(30))
    assert one.steps == 30 and math.isnan(one.low) and math.isnan(one.high)
    same = survival.median(lengths(30, 30, 30))
    assert (same.low, same.steps, same.high) == (30, 30, math.inf)


def test_medians_of_many_groups_are_those_of_the_curve():
    rng = np.random.default_rng(0)
    steps, left = rng.integers(1, 8, (200, 7)).astype(float), rng.random((200, 7)) < 0.6
    expected = [survival.median(Lengths(*row)).steps for row in zip(steps, left, strict=True)]
    np.testing.assert_array_equal(survival._medians(steps, left), expected)


def test_a_speed_up_is_the_ratio_of_medians_with_an_interval():
    baseline, group = lengths(900, 1000, 1100, 950, 1050), lengths(90, 100, 110, 95, 105)
    result = survival.speed_up(baseline, group)
    assert result.ratio == 10 and result.bound == ""
    assert 900 / 110 <= result.low < 10 < result.high <= 1100 / 90
    assert result.p_value == pytest.approx(2 / 252)  # of all ways to divide ten runs, only two divide them as clearly
    assert survival.speed_up(baseline, group) == result


def test_groups_that_were_watched_for_other_times_are_compared_over_the_shorter():
    """Nobody leaves after what both were watched for: which group was watched longer must not count."""
    group = lengths(90, 100, 110, 100, -200)
    same = survival.speed_up(lengths(*[-200] * 5), group).p_value
    assert survival.speed_up(lengths(*[-5000] * 5), group).p_value == same == pytest.approx(2 * 6 / 252, abs=0.02)


def test_a_censored_baseline_gives_a_lower_bound():
    result = survival.speed_up(lengths(-1000, -1000, -1000, -1000, -1000), lengths(90, 100, 110, 100, 100))
    assert (result.ratio, result.bound) == (10, "at least")
    assert 1000 / 110 <= result.low <= 10 and result.high == math.inf
    # Where the baseline is mostly but not always beyond its budget, too.
    result = survival.speed_up(lengths(500, 800, -1000, -1000, -1000), lengths(90, 100, 110, 100, 100))
    assert (result.ratio, result.bound, result.high) == (10, "at least", math.inf)
    assert result.low < 8.9


def test_a_censored_group_gives_an_upper_bound():
    result = survival.speed_up(lengths(90, 100, 110, 100, 100), lengths(-1000, -1000, -1000, -1000, -1000))
    assert (result.ratio, result.bound, result.low) == (0.1, "at most", 0)
    assert result.high == pytest.approx(0.11)


def test_where_both_are_censored_nothing_is_known():
    result = survival.speed_up(lengths(*[-100] * 5), lengths(*[-100] * 5))
    assert math.isnan(result.ratio) and result.bound == "unknown" and math.isnan(result.p_value)
    assert (result.low, result.high) == (0, math.inf)


def test_one_run_has_a_ratio_without_interval_or_p_value():
    for baseline, group in ((lengths(100), lengths(10, 20, 30)), (lengths(90, 100, 110), lengths(20))):
        result = survival.speed_up(baseline, group)
        assert result.ratio == 5 and result.bound == ""
        assert all(map(math.isnan, (result.low, result.high, result.p_value)))


def test_few_runs_have_no_interval_and_no_small_p_value():
    result = survival.speed_up(lengths(-500, -500, -500), lengths(80, 90, 100))
    assert (result.ratio, result.bound) == (500 / 90, "at least")
    assert math.isnan(result.low) and math.isnan(result.high)
    assert result.p_value == pytest.approx(2 / math.comb(6, 3))


def test_of_many_runs_the_p_value_is_that_of_the_log_rank_test():
    rng = np.random.default_rng(0)
    baseline, group = (
        Lengths(np.minimum(steps, 150), steps <= 150) for steps in (rng.exponential(scale, 60) for scale in (130, 90))
    )
    expected = scipy.stats.logrank(baseline.censored, group.censored).pvalue
    assert 0.01 < expected < 0.5
    assert survival.speed_up(baseline, group).p_value == pytest.approx(expected, rel=0.15)


def test_groups_that_all_leave_at_one_step_have_no_p_value():
    assert math.isnan(survival.speed_up(lengths(10, 10), lengths(10, 10)).p_value)
