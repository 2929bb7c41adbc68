import numpy as np

from gpicl_flax.records.lengths import Lengths, kaplan_meier


def product_limit(steps, left, until):
    """The estimate by its definition: the product over the steps at which runs leave, in float64."""
    share = 1.0
    for step in sorted({step for step, leaves in zip(steps, left, strict=True) if leaves and step <= until}):
        present = sum(each >= step for each in steps)  # runs that end at a step were present when others left at it
        leaving = sum(leaves and each == step for each, leaves in zip(steps, left, strict=True))
        share *= 1 - leaving / present
    return share


def test_it_is_the_product_limit_with_ties_and_censoring():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps, left = rng.integers(1, 9, 12).astype(float), rng.random(12) < 0.6
        found = kaplan_meier(Lengths(steps, left)).evaluate(np.arange(0.0, 10.0))
        np.testing.assert_allclose(found, [product_limit(steps, left, until) for until in range(10)], atol=1e-12)
