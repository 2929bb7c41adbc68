import numpy as np
import pandas as pd
import pytest
import scipy.stats

from gpicl_flax.analysis.stats import intervals

VALUES = np.array([0.3, 0.5, 0.4, 0.7])
EXPECTED = scipy.stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)


def test_the_interval_of_a_mean_is_that_of_the_t_test():
    assert intervals.of_runs(VALUES) == pytest.approx((0.475, EXPECTED.low, EXPECTED.high))


def test_a_table_has_a_mean_for_each_key_and_of_one_run_its_own_interval():
    rows = pd.DataFrame({"key": ["a"] * 5 + ["b"], "x": [*VALUES, np.nan, 0.2], "x_low": 0.1, "x_high": 0.25})
    a, b = intervals.table(rows, ["key"], "x").itertuples(index=False)
    assert a[1:] == pytest.approx((0.475, EXPECTED.low, EXPECTED.high, 4)) and b[1:] == pytest.approx(
        (0.2, 0.1, 0.25, 1)
    )
    (_, only) = intervals.table(rows[["key", "x"]], ["key"], "x").itertuples(index=False)
    assert only.mean == 0.2 and np.isnan([only.low, only.high]).all()


def test_runs_that_are_alike_by_chance_have_the_interval_of_their_sequences_together():
    ends = np.array([[0.4, 0.6], [0.4, 0.6]])  # of 2 runs at 2 positions, the runs alike
    mean, low, high = intervals.of_runs_or_sequences(ends, ends - 0.1, ends + 0.1)
    np.testing.assert_allclose([mean, low, high], [[0.4, 0.6], ends[0] - 0.1 / 2**0.5, ends[0] + 0.1 / 2**0.5])
    rows = pd.DataFrame({"key": "a", "x": [0.4, 0.4], "x_low": 0.3, "x_high": 0.5})
    (row,) = intervals.table(rows, ["key"], "x").itertuples(index=False)
    assert row[1:] == pytest.approx((0.4, 0.4 - 0.1 / 2**0.5, 0.4 + 0.1 / 2**0.5, 2))
