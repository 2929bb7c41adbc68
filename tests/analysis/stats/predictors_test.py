"""Comparisons of predictors, on samples whose answer is known."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from sklearn.isotonic import IsotonicRegression

from gpicl_flax.analysis.stats import predictors
from gpicl_flax.analysis.stats.predictors import Comparison

SIZES = 6
ARCHITECTURES = 4


def sample(drive, seed=0, noise=0.05):
    """Accuracy, state size, parameters and architecture of 24 configurations whose sizes are independent."""
    rng = np.random.default_rng(seed)
    runs = SIZES * ARCHITECTURES
    state, parameters = rng.uniform(4, 16, runs), rng.uniform(10, 22, runs)
    latent = {
        "state": (state - 10) / 1.5,
        "parameters": (parameters - 16) / 1.5,
        "both": (state - 10) / 3 + (parameters - 16) / 3,
        "nothing": rng.normal(size=runs),
    }[drive]
    accuracy = 0.1 + 0.7 * scipy.special.expit(latent) + noise * rng.normal(size=runs)
    return accuracy, 2**state, 2**parameters, np.repeat(np.arange(ARCHITECTURES), SIZES)


@pytest.mark.parametrize("drive, better", [("state", predictors.STATE), ("parameters", predictors.PARAMETERS)])
def test_what_drives_accuracy_predicts_it_better(drive, better):
    assert [predictors.compare(*sample(drive, seed)).verdict for seed in range(5)] == [better] * 5


def test_the_sentence_has_the_numbers():
    comparison = predictors.compare(*sample("parameters"))
    assert comparison.sentence.startswith("Parameter count predicts accuracy better than state size: R2 of a monotone ")
    assert f"fit {comparison.parameters.monotone_r2} against {comparison.state.monotone_r2}; " in comparison.sentence
    difference = comparison.difference
    expected = predictors.Estimate(-difference.value, -difference.high, -difference.low)
    assert comparison.sentence.endswith(f"difference {expected}.") and expected.low > 0


@pytest.mark.slow
def test_equally_good_predictors_are_rarely_told_apart():
    verdicts = [predictors.compare(*sample("both", seed)).verdict for seed in range(16)]
    assert sum(verdict in (predictors.STATE, predictors.PARAMETERS) for verdict in verdicts) <= 3


def test_noise_is_predicted_by_neither():
    found = [predictors.compare(*sample("nothing", seed)) for seed in range(10)]
    verdicts = [comparison.verdict for comparison in found]
    assert verdicts.count(predictors.NEITHER) >= 8
    assert not {predictors.STATE, predictors.PARAMETERS} & set(verdicts)
    # On what it has not seen, a flexible fit to noise is no better than the mean.
    assert np.mean([comparison.state.monotone_r2.value for comparison in found]) < 0.05
    assert found[0].sentence.startswith("Neither state size nor parameter count predicts accuracy")


def test_sizes_that_grow_together_cannot_be_separated():
    accuracy, state, _, architecture = sample("state")
    comparison = predictors.compare(accuracy, state, 100 * state**2, architecture)
    assert comparison.verdict == predictors.COLLINEARITY and comparison.collinearity == pytest.approx(1)
    assert "cannot be separated by these runs: their rank correlation is 1.00" in comparison.sentence
    assert math.isnan(comparison.state.partial.value)
    assert predictors.compare(accuracy, state, 1e9 / state, architecture).verdict == predictors.COLLINEARITY


def test_few_or_equal_configurations_are_not_compared():
    two = predictors.compare(*(x[:2] for x in sample("state")))
    assert two == Comparison(predictors.NOT_ENOUGH, 2)
    assert two.sentence == "Not enough runs: 2 configurations, where a comparison takes 6."
    accuracy, state, parameters, architecture = sample("state")
    assert predictors.compare(accuracy, state, np.full(24, 7), architecture).verdict == predictors.NO_VARIATION
    assert predictors.compare(np.full(24, 0.1), state, parameters, architecture).verdict == predictors.NO_VARIATION


def test_correlations_are_those_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    x, y, z = rng.integers(0, 8, (3, 20)).astype(float)
    counts = rng.integers(0, 4, (5, 20)).astype(float)
    draws = [np.repeat(np.arange(20), row.astype(int)) for row in counts]
    spearman, kendall = predictors._spearman(counts, x, y), predictors._kendall(counts, x, y)
    np.testing.assert_allclose(spearman, [scipy.stats.spearmanr(x[d], y[d]).statistic for d in draws])
    np.testing.assert_allclose(kendall, [scipy.stats.kendalltau(x[d], y[d]).statistic for d in draws])
    # A partial correlation is that of what least squares leave of both ranks.
    ranks = np.stack([scipy.stats.rankdata(v) for v in (x, y, z)])
    line = np.stack([np.ones(20), ranks[2]], axis=1)
    left = [rank - line @ np.linalg.lstsq(line, rank)[0] for rank in ranks[:2]]
    pairs = [predictors._spearman(np.ones((1, 20)), *pair) for pair in ((x, y), (z, y), (x, z))]
    assert predictors._partial(*pairs)[0] == pytest.approx(np.corrcoef(*left)[0, 1])


def test_the_monotone_fit_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    size, accuracy = rng.integers(0, 9, 15).astype(float), rng.random(15)
    expected = []
    for out in range(15):
        others = np.arange(15) != out
        fit = IsotonicRegression(out_of_bounds="clip").fit(size[others], accuracy[others])
        expected.append(fit.predict(size[[out]])[0])
    np.testing.assert_allclose(predictors._monotone_left_out(size, accuracy), expected)


def test_the_sigmoid_is_about_that_of_least_squares():
    rng = np.random.default_rng(0)
    size = np.sort(rng.uniform(4, 16, 20))
    accuracy = 0.1 + 0.7 * scipy.special.expit((size - 10) / 1.5) + 0.02 * rng.normal(size=20)

    def curve(at, floor, height, midpoint, width):
        return floor + height * scipy.special.expit((at - midpoint) / width)

    predicted = predictors._sigmoid_left_out(size, accuracy)
    for out in (3, 10, 15):
        others = np.arange(20) != out
        found, _ = scipy.optimize.curve_fit(curve, size[others], accuracy[others], [0.1, 0.7, 10, 1])
        assert predicted[out] == pytest.approx(curve(size[out], *found), abs=0.01)


def test_draws_keep_each_architecture():
    architecture = np.array([0, 0, 0, 1, 2, 2])
    counts = predictors._draws(architecture, np.random.default_rng(0))
    assert (counts[0] == 1).all() and (counts[:, 3] == 1).all()
    assert (counts[:, :3].sum(1) == 3).all() and (counts[:, 4:].sum(1) == 2).all()
    assert np.ptp(counts[:, 0]) > 0
