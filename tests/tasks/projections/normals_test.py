import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.random import threefry_2x32

from gpicl_flax.tasks import keys
from gpicl_flax.tasks.projections import normals

KEY = keys.task_key(0)


@pytest.fixture(scope="module")
def numbers():
    """[2000, 999] numbers: 2 million."""
    return np.asarray(jax.jit(normals.standard_normals, static_argnums=(1, 2))(KEY, 2000, 999), np.float64)


def test_blocks_are_those_of_jax():
    data = jax.random.key_data(KEY)
    counters = jnp.concatenate([jnp.arange(1000, dtype=jnp.uint32), jnp.zeros(1000, jnp.uint32)])
    np.testing.assert_array_equal(np.concatenate(normals.threefry_blocks(data, 1000)), threefry_2x32(data, counters))


def test_quantiles_are_those_of_the_normal_distribution():
    halves = np.arange(2**16)
    found = np.asarray(normals.quantile(jnp.array(halves)), np.float64)
    np.testing.assert_allclose(found, scipy.stats.norm.ppf((halves + 0.5) / 2**16), rtol=5e-6)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, -found[::-1])
    assert found.var() == pytest.approx(1, abs=3e-5) and scipy.stats.kurtosis(found) == pytest.approx(0, abs=2e-3)


def test_numbers_are_normal(numbers):
    values = numbers.reshape(-1)
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4 / len(values) ** 0.5
    assert values.var() == pytest.approx(1, abs=4 * (2 / len(values)) ** 0.5)
    counts = np.histogram(scipy.stats.norm.cdf(values), bins=256, range=(0, 1))[0]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("transform", [lambda x: x, np.square, np.sign])
def test_numbers_are_independent_within_a_block_and_across_rows_and_columns(numbers, transform):
    """The four numbers of a block are a quarter of the columns apart."""
    values = transform(numbers)
    values = values - values.mean()
    for rows, columns in ((0, 250), (0, 500), (0, 750), (0, 1), (1, 0), (1, 250), (1, -250), (64, 0), (128, 3)):
        other = np.roll(values, (rows, columns), (0, 1))
        correlation = (values * other).mean() / values.var()
        assert abs(correlation) < 4.5 / values.size**0.5, (rows, columns)
    matrix = np.corrcoef(values.T)[np.triu_indices(999, k=1)]
    assert matrix.std() == pytest.approx(2000**-0.5, rel=0.02) and np.abs(matrix).max() < 6 * 2000**-0.5


def test_neighbouring_keys_give_independent_streams():
    tasks = jax.vmap(lambda task_id: jax.random.fold_in(KEY, task_id))(np.arange(300, dtype=np.uint32))
    values = np.asarray(jax.vmap(lambda key: normals.standard_normals(key, 30, 40))(tasks)).reshape(300, -1)
    matrix = np.corrcoef(values)[np.triu_indices(300, k=1)]
    assert matrix.std() == pytest.approx(1200**-0.5, rel=0.02) and np.abs(matrix).max() < 6 * 1200**-0.5


@pytest.mark.parametrize("columns", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 5, 17))])
def test_a_row_does_not_depend_on_how_many_there_are(columns):
    whole = np.asarray(normals.standard_normals(KEY, 50, columns))
    assert whole.shape == (50, columns) and len(np.unique(whole[:, 0])) > 45
    np.testing.assert_array_equal(normals.standard_normals(KEY, 7, columns), whole[:7])
