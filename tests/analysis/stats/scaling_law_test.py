import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from gpicl_flax.analysis.stats import law_coverage, law_forms, law_search, scaling_law, seed_draws
from gpicl_flax.analysis.stats.law_forms import OffsetPower, Saturating

SIZES = 256 * 4.0 ** np.arange(6)
LOSS, ACCURACY = law_coverage.TRUTHS["loss"], law_coverage.TRUTHS["accuracy"]
EACH = pytest.mark.parametrize("truth", [LOSS, ACCURACY], ids=["loss", "accuracy"])


def sweep(truth, seed=0, seeds=4, sizes=6, noise=1.0):
    quiet = dataclasses.replace(truth, of_seeds=noise * truth.of_seeds, of_runs=noise * truth.of_runs)
    return quiet.sweep(sizes, seeds, np.random.default_rng(seed))


def values_of(law):
    return [(x.value, x.low, x.high) for x in law.constants.values()]


def fitted(law):
    return [x.value for x in law.constants.values()]


def formula(truth):
    """The law of a truth, written out, of its constants."""
    if truth is LOSS:
        return lambda n, offset, factor, alpha: offset + factor * n**-alpha
    return lambda n, top, half, alpha: 0.1 + (top - 0.1) / (1 + (half / n) ** alpha)


@EACH
def test_without_noise_the_constants_are_those_of_the_truth(truth):
    n, values = sweep(truth, noise=0)
    np.testing.assert_allclose(values[0], formula(truth)(n, *truth.constants), rtol=1e-12)
    law = scaling_law.fit(n, values, truth.form, draws=20)
    for estimate, true in zip(law.constants.values(), truth.constants, strict=True):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((true,) * 3, rel=1e-4)
    assert fitted(law) == pytest.approx(truth.constants, rel=1e-6)
    assert law.left_out.value == pytest.approx(0, abs=1e-6)
    unseen = 64 * n[-1]
    assert law.at([unseen])[0] == pytest.approx(formula(truth)(unseen, *truth.constants), rel=1e-6)


@EACH
def test_the_law_is_that_of_least_squares(truth):
    for seed in range(5):
        n, values = sweep(truth, seed)
        expected, _ = scipy.optimize.curve_fit(formula(truth), n, values.mean(axis=0), p0=truth.constants, xtol=1e-12)
        assert fitted(scaling_law.fit(n, values, truth.form, draws=2)) == pytest.approx(expected, rel=1e-4)


def test_without_an_offset_it_is_a_line_through_logarithms():
    n, alpha = SIZES, 0.4
    values = 3 * n**-alpha
    law = scaling_law.fit(n, values[None], OffsetPower())
    line = scipy.stats.linregress(np.log(n), np.log(values))
    assert fitted(law) == pytest.approx([0, np.exp(line.intercept), -line.slope], abs=1e-6)


@EACH
def test_every_draw_is_fitted_as_the_means_are(truth):
    n, values = sweep(truth)
    law = scaling_law.fit(n, values, truth.form, draws=30)
    curves = law.weights @ values
    for drawn, curve in zip(law.drawn, curves, strict=True):
        own = ((truth.form.at(n, drawn) - curve) ** 2).sum()
        found = scipy.optimize.least_squares(
            lambda p, curve=curve: formula(truth)(n, p[0], np.exp(p[1]), p[2]) - curve, drawn, x_scale="jac"
        )
        assert own <= 2 * found.cost * (1 + 1e-3) + 1e-12


def test_steep_laws_among_many_sizes_are_found():
    form, n = Saturating(0.1), 2.0 ** np.array([0, 4, 5, 6, 7, 8, 10, 12, 16, 24])
    rng = np.random.default_rng(0)
    for alpha in (0.3, 3.0, 5.0):
        curves = form.at(n, law_forms.as_array(0.6, 180.0, alpha)) + 0.005 * rng.standard_normal((20, len(n)))
        shapes, lines = law_search.best(form, np.log(n), curves)
        found = form.to_constants(shapes, lines, 0.0)
        assert found[:, 2].mean() == pytest.approx(alpha, rel=0.15)
        assert found[:, 0].mean() == pytest.approx(0.6, rel=0.05)


@EACH
def test_the_unit_of_sizes_does_not_matter(truth):
    n, values = sweep(truth)
    one, other = (scaling_law.fit(unit * n, values, truth.form, draws=40) for unit in (1, 1000))
    factors = (1, 1000 ** one.constants["alpha"].value, 1) if truth is LOSS else (1, 1000, 1)
    assert fitted(other) == pytest.approx(np.multiply(fitted(one), factors), rel=1e-6)
    np.testing.assert_allclose(other.at(1000 * n), one.at(n), rtol=1e-6)
    assert other.left_out.value == pytest.approx(one.left_out.value, abs=1e-8)


def test_losses_in_another_unit_have_another_offset_and_factor_alone():
    n, values = sweep(LOSS)
    one, other = (scaling_law.fit(n, unit * values, LOSS.form, draws=40) for unit in (1, 50))
    np.testing.assert_allclose(values_of(other), np.array(values_of(one)) * [[50], [50], [1]], rtol=1e-4)


@EACH
def test_a_seed_makes_the_same_intervals_again(truth):
    n, values = sweep(truth)
    laws = [scaling_law.fit(n, values, truth.form, draws=50, seed=seed) for seed in (1, 1, 2)]
    assert values_of(laws[0]) == values_of(laws[1]) != values_of(laws[2])
    assert laws[0].left_out == laws[1].left_out != laws[2].left_out
    assert laws[0].fitted.tolist() == laws[2].fitted.tolist()


@EACH
def test_the_order_of_seeds_does_not_matter_to_the_law(truth):
    n, values = sweep(truth)
    laws = [scaling_law.fit(n, rows, truth.form, draws=2) for rows in (values, values[::-1])]
    assert laws[0].fitted == pytest.approx(laws[1].fitted, rel=1e-6)


@EACH
def test_the_largest_size_is_predicted_without_it(truth):
    n, values = sweep(truth)
    law = scaling_law.fit(n, values, truth.form, draws=100)
    shifted = values.copy()
    shifted[:, -1] += 0.3
    moved = scaling_law.fit(n, shifted, truth.form, draws=100).left_out
    assert moved.value == pytest.approx(law.left_out.value - 0.3, abs=1e-9)
    expected, _ = scipy.optimize.curve_fit(formula(truth), n[:-1], values[:, :-1].mean(axis=0), p0=truth.constants)
    error = formula(truth)(n[-1], *expected) - values[:, -1].mean()
    assert law.left_out.value == pytest.approx(error, abs=1e-5)
    assert law.left_out.low < law.left_out.value < law.left_out.high


def test_bounds_hold():
    # Losses that fall along a line in log(n) have no offset that could be told; accuracies above 1 are not reached.
    steep = scaling_law.fit(SIZES, (3 - 0.3 * np.log(SIZES / SIZES[0]))[None] ** 2, OffsetPower())
    assert min(fitted(steep)) >= 0
    n, values = sweep(ACCURACY)
    high = scaling_law.fit(n, values + 0.4, ACCURACY.form, draws=50)
    assert high.fitted[0] <= 1 and (high.drawn[:, 0] <= 1).all()
    everywhere = high.form.at(np.geomspace(1e-3, 1e12, 30), high.drawn)
    assert (everywhere >= 0.1).all() and (everywhere <= 1).all()


@EACH
@pytest.mark.filterwarnings("error")
def test_sizes_that_are_large_or_nearly_the_same_are_no_problem(truth):
    _, values = sweep(truth, seeds=3)
    for n in (1e9 * (1 + 1e-3 * np.arange(6)), np.array([1000, 1001, 1e6, 1e6 + 1, 1e12, 1e13])):
        law = scaling_law.fit(n, values, truth.form, draws=50)
        assert np.isfinite(law.at(n)).all() and np.isfinite(law.left_out.value)
    with pytest.raises(ValueError, match="ascending"):
        scaling_law.fit(SIZES[::-1], values, truth.form)


def test_a_density_may_have_a_negative_offset():
    values = (-0.8 + 20 * SIZES**-0.5)[None]
    assert scaling_law.fit(SIZES, values, OffsetPower(floor=-np.inf)).fitted[0] == pytest.approx(-0.8, rel=1e-5)
    assert scaling_law.fit(SIZES, values, OffsetPower()).fitted[0] == 0


@pytest.mark.parametrize("sizes, why", [(4, "4 sizes, where a law takes 5"), (1, "1 size, where a law takes 5")])
def test_few_sizes_have_no_law(sizes, why):
    n, values = sweep(LOSS)
    assert scaling_law.fit(n[:sizes], values[:, :sizes], LOSS.form) == why
    assert isinstance(scaling_law.fit(n[:5], values[:, :5], LOSS.form, draws=2), scaling_law.Law)


@EACH
def test_values_that_get_worse_have_no_law(truth):
    n, values = sweep(truth)
    assert scaling_law.fit(n, values[:, ::-1], truth.form) == "the values do not get better with the size"
    constant = np.full((3, 6), 0.4)
    assert scaling_law.fit(n, constant, truth.form) == "the values do not get better with the size"


def test_one_seed_has_a_law_without_intervals():
    n, values = sweep(LOSS, seeds=1)
    law = scaling_law.fit(n, values, LOSS.form)
    assert np.isnan([(x.low, x.high) for x in law.constants.values()]).all()
    value, low, high = law.at(n)
    assert np.isfinite(value).all() and np.isnan([low, high]).all() and np.isnan(law.left_out.low)
    with pytest.raises(ValueError, match="one seed"):
        seed_draws.weights(1, 10, np.random.default_rng(0))


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_draws_of_a_mean_have_students_interval(seeds):
    values = np.random.default_rng(1).normal(size=(seeds, 1))
    weights = seed_draws.weights(seeds, 200_000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    expected = scipy.stats.ttest_1samp(values[:, 0], 0).confidence_interval(0.95)
    low, high = seed_draws.ends(weights @ values)[:, 0]
    assert (low, high) == pytest.approx(expected, rel=0.03, abs=0.02)


@pytest.mark.parametrize("name", ["loss", pytest.param("accuracy", marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_19_times_in_20(name):
    table = law_coverage.coverage(law_coverage.TRUTHS[name], sizes=6, seeds=4, sweeps=200, draws=100)
    assert table["coverage"].between(0.9, 0.98).all(), table


def test_seeds_drawn_with_replacement_hold_it_less_often():
    resample = seed_draws.with_replacement
    table = law_coverage.coverage(LOSS, sizes=6, seeds=4, sweeps=60, draws=60, resample=resample)
    assert (table["coverage"] < 0.9).all(), table


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loss", "accuracy"])
@pytest.mark.parametrize("seeds", [3, 4, 5, 8])
@pytest.mark.parametrize("sizes", [5, 6, 8])
def test_the_table_of_coverage(name, seeds, sizes):
    table = law_coverage.coverage(law_coverage.TRUTHS[name], sizes=sizes, seeds=seeds, sweeps=400)
    assert table["coverage"].between(0.9, 0.98).all(), table


@pytest.mark.parametrize("truth", law_coverage.TRUTHS.values(), ids=law_coverage.TRUTHS)
def test_many_curves_are_fitted_as_each_alone(truth):
    sizes, values = truth.sweep(6, 70, np.random.default_rng(0))
    log_n = np.log(sizes) - np.log(sizes).mean()
    together, _ = law_search.best(truth.form, log_n, values)
    alone = [law_search.best(truth.form, log_n, curve[None])[0][0] for curve in values]
    np.testing.assert_allclose(together, alone, rtol=1e-9)
