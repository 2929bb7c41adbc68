import numpy as np
import pandas as pd
import pytest
import scipy.stats

from gpicl_flax.analysis import intervals

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
