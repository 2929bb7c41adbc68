import math

import numpy as np
import pytest
import scipy.stats

from gpicl_flax.records import matching_scores
from gpicl_flax.records.matching_scores import FEWEST, FLOOR, WINDOW


def test_exponential_growth_is_found_and_continued():
    scores = [(step, 0.02 * math.exp(0.01 * step)) for step in range(0, 100, 10)]
    growth = matching_scores.growth(scores)
    assert growth is not None
    assert growth.rate == pytest.approx(0.01) and growth.highest_rate == pytest.approx(0.01)
    assert growth.after(50, 0.0) == pytest.approx(0.02 * math.exp(0.01 * 140))
    assert growth.after(50, 0.02) == pytest.approx(0.02 * math.exp(0.9 + 1.0))
    assert growth.after(10_000, 0.0) == 1.0


def test_the_fit_is_that_of_scipy_over_the_faster_window():
    rng = np.random.default_rng(0)
    for _ in range(20):
        steps, scores = np.arange(0, 300, 20), rng.uniform(0.0, 0.2, 15)
        fits = []
        for count in (FEWEST, WINDOW):
            logs = np.log(np.maximum(scores[-count:], FLOOR))
            fit = scipy.stats.linregress(steps[-count:], logs)
            end = math.exp(max(fit.intercept + fit.slope * steps[-1], math.log(FLOOR)))
            fits.append((end, fit.slope, fit.slope + 2 * fit.stderr))
        found = matching_scores.growth(list(zip(steps.tolist(), scores.tolist(), strict=True)))
        assert found is not None
        np.testing.assert_allclose(found, np.max(fits, axis=0), rtol=1e-9, atol=1e-12)


def test_noise_below_the_floor_is_no_growth():
    scores = [
        (step, score) for step, score in zip(range(0, 60, 10), (0.0, 0.009, 0.002, 0.001, 0.0, 0.008), strict=True)
    ]
    assert matching_scores.growth(scores) == (pytest.approx(FLOOR), 0.0, 0.0)


def test_few_diagnoses_show_no_growth():
    assert matching_scores.growth([(0, 0.1)] * (FEWEST - 1)) is None


def test_the_highest_score_is_that_of_any_head():
    assert matching_scores.highest({"matching_score": [[0.1, None], [0.3, math.nan]]}) == 0.3
    assert matching_scores.highest({"matching_score": [[None]]}) is None
    assert matching_scores.highest({"unseen_loss": 2.3}) is None
