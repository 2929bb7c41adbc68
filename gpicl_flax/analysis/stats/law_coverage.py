"""Measures how often the intervals of laws hold the truth, on simulated sweeps whose constants are known."""

import dataclasses

import numpy as np
import pandas as pd

from gpicl_flax.analysis.stats import scaling_law, seed_draws
from gpicl_flax.analysis.stats.law_forms import Form, OffsetPower, Saturating, as_array

UNSEEN = "unseen size"  # the law at four times the largest size


@dataclasses.dataclass(frozen=True)
class Truth:
    """A law with noise: a seed shifts its whole curve, and every run has noise of its own, both normal.

    Attributes:
      form: the form of the law.
      constants: those of the law, in the order of their names.
      of_seeds: the standard deviation of the shifts.
      of_runs: that of the noise of runs.
    """

    form: Form
    constants: tuple[float, float, float]
    of_seeds: float
    of_runs: float

    def sweep(self, sizes: int, seeds: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns sizes [K], each four times the one before, from 256 on, and the values of each seed, [S, K]."""
        n = 256 * 4.0 ** np.arange(sizes)
        noise = self.of_seeds * rng.standard_normal((seeds, 1)) + self.of_runs * rng.standard_normal((seeds, sizes))
        return n, self.at(n) + noise

    def at(self, n: np.ndarray) -> np.ndarray:
        """Returns the law without noise at sizes [N]."""
        return self.form.at(n, as_array(*self.constants))


# The noise of accuracies is about that of the runs of results/state_size and results/fig4.
TRUTHS = {
    "loss": Truth(OffsetPower(), (1.2, 256**0.35, 0.35), of_seeds=0.02, of_runs=0.02),
    "accuracy": Truth(Saturating(0.1), (0.65, 2000.0, 0.8), of_seeds=0.012, of_runs=0.014),
}


def coverage(
    truth: Truth,
    *,
    sizes: int,
    seeds: int,
    sweeps: int = 200,
    draws: int = 300,
    seed: int = 0,
    resample: seed_draws.Resample = seed_draws.weights,
) -> pd.DataFrame:
    """Returns a row for each constant, and one for the law at an unseen size.

    Columns: quantity; coverage, the fraction of sweeps whose interval holds the truth; width, the median width of
    intervals, divided by the truth.
    """
    rng = np.random.default_rng(seed)
    held, widths = [], []
    for number in range(sweeps):
        n, values = truth.sweep(sizes, seeds, rng)
        law = scaling_law.fit(n, values, truth.form, draws=draws, seed=number, resample=resample)
        assert isinstance(law, scaling_law.Law), law
        unseen = 4 * n[-1:]
        _, *at_unseen = law.at(unseen)
        ends = np.array([*((x.low, x.high) for x in law.constants.values()), np.ravel(at_unseen)])
        true = np.append(truth.constants, truth.at(unseen))
        held.append((ends[:, 0] <= true) & (true <= ends[:, 1]))
        widths.append((ends[:, 1] - ends[:, 0]) / true)
    names = [*truth.form.constants, UNSEEN]
    return pd.DataFrame({"quantity": names, "coverage": np.mean(held, axis=0), "width": np.median(widths, axis=0)})
