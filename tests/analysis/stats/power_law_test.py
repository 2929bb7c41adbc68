import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from gpicl_flax.analysis.stats import power_law
from gpicl_flax.records.lengths import Lengths

BATCHES = np.repeat(2.0 ** np.arange(5, 13), 3)


def plateaus(rng, exponent=-0.6, noise=0.4, budget=np.inf):
    """Plateaus of 3e5 x B^exponent steps, about, cut off at a budget."""
    steps = 3e5 * BATCHES**exponent * np.exp(noise * rng.normal(size=len(BATCHES)))
    return Lengths(np.minimum(steps, budget), steps <= budget)


def test_without_censoring_it_is_the_line_of_least_squares():
    lengths = plateaus(np.random.default_rng(0))
    law = power_law.fit(BATCHES, lengths)
    line = scipy.stats.linregress(np.log(BATCHES), np.log(lengths.steps))
    margin = scipy.stats.t.ppf(0.975, len(BATCHES) - 2) * line.stderr
    assert law.exponent == pytest.approx(line.slope)
    assert (law.low, law.high) == pytest.approx((line.slope - margin, line.slope + margin))
    assert law.at([1, 32]) == pytest.approx(np.exp(line.intercept) * np.array([1, 32]) ** line.slope)
    residuals = np.log(lengths.steps) - line.intercept - line.slope * np.log(BATCHES)
    assert law.scatter == pytest.approx(np.exp(np.sqrt((residuals**2).sum() / (len(BATCHES) - 2))))


def test_with_censoring_it_is_the_maximum_of_the_likelihood():
    lengths = plateaus(np.random.default_rng(1), budget=10_000)
    assert 5 < (~lengths.left).sum() < 15

    def loss(p):
        z = (np.log(lengths.steps) - p[0] - p[1] * np.log(BATCHES)) / np.exp(p[2])
        of_left = scipy.stats.norm.logpdf(z) - p[2]
        return -np.where(lengths.left, of_left, scipy.stats.norm.logsf(z)).sum()

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000, "maxfev": 10_000}
    found = scipy.optimize.minimize(loss, [12, -0.5, -1], method="Nelder-Mead", options=options)
    law = power_law.fit(BATCHES, lengths)
    assert (np.log(law.coefficient), law.exponent) == pytest.approx(found.x[:2], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [20_000, 8_000])
def test_intervals_hold_the_exponent_19_times_in_20(budget):
    rng = np.random.default_rng(0)
    laws, censored = [], []
    for _ in range(150):
        lengths = plateaus(rng, budget=budget)
        laws.append(power_law.fit(BATCHES, lengths))
        censored.append((~lengths.left).mean())
    assert np.mean(censored) > 0.2
    assert 0.9 <= np.mean([law.low <= -0.6 <= law.high for law in laws]) <= 0.99
    assert np.median([law.exponent for law in laws]) == pytest.approx(-0.6, abs=0.03)
    # Taking the last step of a censored run for the length of its plateau would not find it.
    lengths = plateaus(rng, budget=budget)
    assert scipy.stats.linregress(np.log(BATCHES), np.log(lengths.steps)).slope > -0.5


def test_what_runs_do_not_tell_is_said():
    few = Lengths(np.full(5, 100.0), np.array([True, True, True, False, False]))
    assert power_law.fit(np.arange(1, 6), few) == "3 of 5 runs have left their plateau, and a fit takes 4"
    same = Lengths(np.arange(100.0, 109), np.array([True] * 5 + [False] * 4))
    assert "at one size only" in power_law.fit(np.array([8] * 5 + [16, 32, 64, 128]), same)
    exact = Lengths(100 / np.arange(1.0, 6), np.ones(5, bool))
    assert "no noise" in power_law.fit(np.arange(1, 6), exact)


def test_fewer_than_five_sizes_have_no_law():
    lengths = plateaus(np.random.default_rng(0))
    few = BATCHES < 2**9  # 4 of 8 sizes
    found = power_law.fit(BATCHES[few], Lengths(lengths.steps[few], lengths.left[few]))
    assert found == "4 sizes, where a law takes 5"
