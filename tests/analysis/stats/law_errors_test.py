import numpy as np
import pytest

from gpicl_flax.analysis.stats import law_errors, scaling_law
from gpicl_flax.analysis.stats.law_forms import OffsetPower

STATE = 64 * 4.0 ** np.arange(6)
# The same runs by another size, which grows with the state, but not as a power of it.
PARAMETERS = STATE + np.array([0, 200, 100, 40_000, 70_000, 4_000_000])


def laws(rng, seeds=4, noise=0.001):
    """Laws in state, which is the right one, and in parameters, of two architectures."""
    found = {"state": [], "parameters": []}
    for number in range(2):
        values = 0.5 + 3 * STATE**-0.4 + noise * rng.standard_normal((seeds, len(STATE)))
        for name, sizes in (("state", STATE), ("parameters", PARAMETERS)):
            found[name].append(scaling_law.fit(sizes, values, OffsetPower(), draws=100, seed=number))
    return found


def test_the_right_size_has_the_smallest_error():
    of = laws(np.random.default_rng(0))
    errors = law_errors.compare(of)
    assert list(errors.errors) == ["state", "parameters"] and errors.best == "state" and errors.decided
    for name, own in of.items():
        assert errors.errors[name].value == pytest.approx(np.mean([abs(law.left_out.value) for law in own]))
    difference = errors.errors["parameters"].value - errors.errors["state"].value
    margin = errors.margins["parameters"]
    assert margin.value == pytest.approx(difference) and 0 < margin.low < margin.value < margin.high


def test_a_size_in_another_unit_is_as_good():
    of = laws(np.random.default_rng(0))
    values = [law.values for law in of["state"]]
    of["state"] = [scaling_law.fit(7 * STATE, own, OffsetPower(), draws=100, seed=n) for n, own in enumerate(values)]
    same = [scaling_law.fit(STATE, own, OffsetPower(), draws=100, seed=n) for n, own in enumerate(values)]
    errors = law_errors.compare({"state": of["state"], "same": same})
    (margin,) = errors.margins.values()
    assert (margin.value, margin.low, margin.high) == pytest.approx((0, 0, 0), abs=1e-3) and not errors.decided


def test_much_noise_and_one_seed_decide_nothing():
    assert not law_errors.compare(laws(np.random.default_rng(0), noise=0.3)).decided
    one = law_errors.compare(laws(np.random.default_rng(0), seeds=1))
    assert one.best == "state" and not one.decided and np.isnan(one.margins["parameters"].low)
