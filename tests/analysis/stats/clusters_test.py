import numpy as np
import pytest
import scipy.stats

from gpicl_flax.analysis.stats import clusters


def two(rng, lower, upper, distance=8):
    """Losses around 0.7 and above."""
    return np.concatenate([rng.normal(0.7, 0.05, lower), rng.normal(0.7 + 0.05 * distance, 0.05, upper)])


@pytest.mark.parametrize("lower, upper", [(4, 4), (16, 16), (8, 24)])
def test_two_clusters_are_found_with_their_shares(lower, upper):
    found = clusters.find(two(np.random.default_rng(0), lower, upper, distance=12))
    assert found.bimodal and found.p_value < 0.02 and found.separation > 6
    assert found.shares == pytest.approx((lower / (lower + upper), upper / (lower + upper)))
    assert found.means == pytest.approx((0.7, 1.3), abs=0.06) and found.means[0] < found.cut < found.means[1]


def test_values_of_one_mode_rarely_pass_for_two():
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=32) for _ in range(6)] + [np.exp(0.5 * rng.normal(size=32)) for _ in range(6)]
    assert sum(clusters.find(draw).bimodal for draw in draws) <= 1


def test_an_outlier_is_no_cluster():
    values = np.append(np.random.default_rng(0).normal(0.7, 0.02, 31), 2.0)
    found = clusters.find(values)
    assert found.size == 1 and not found.bimodal


def test_modes_are_those_of_a_kernel_density_estimate():
    rng = np.random.default_rng(0)
    z = two(rng, 10, 12)
    z = (z - z.mean()) / z.std()
    grid = np.linspace(z.min(), z.max(), 400)
    for bandwidth in (0.05, 0.2, 0.5, 1.5):
        density = scipy.stats.gaussian_kde(z, bandwidth / z.std(ddof=1))(grid)
        peaks = (density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])
        assert clusters._modes(z[None], bandwidth)[0] == peaks.sum()


def test_few_or_equal_values_are_not_tested():
    assert clusters.find(np.arange(7)) == "7 runs, where a test takes 8"
    assert clusters.find(np.full(9, 1.5)) == "all values are the same"


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
def test_clusters_that_are_very_narrow_are_found(width):
    noise = width * np.random.default_rng(0).standard_normal(40)
    found = clusters.find(np.repeat([0.7, 2.3], 20) + noise)
    assert isinstance(found, clusters.Clusters)
    assert found.bimodal
    np.testing.assert_allclose(found.means, (0.7, 2.3), atol=3 * width)
    assert found.shares == (0.5, 0.5)
