import numpy as np
import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import fig05_final_losses
from gpicl_flax.analysis.figures.chart import COLOURS
from gpicl_flax.records.json_lines import JsonLines


@pytest.fixture
def make_losses(make_run, tmp_path):
    """Writes a run for each final loss."""

    def make(num_tasks, losses, **options):
        for seed, loss in enumerate(losses):
            folder = make_run(
                tmp_path / f"{num_tasks}_{seed}", num_tasks=num_tasks, seed=seed, diagnostics_period=None, **options
            )
            log = JsonLines(folder.metrics)
            log.append({"step": 110, "loss": loss + 0.3, "loss_ema": loss, "accuracy_last": 0.2, "plateau": False})
            log.flush()
        return tmp_path

    return make


def around(mean, runs, seed=0):
    return np.random.default_rng(seed).normal(mean, 0.02, runs)


def test_two_clusters_have_shares_and_colours(make_losses):
    make_losses(1024, around(1.3, 8))
    of = study.load(make_losses(8192, np.concatenate([around(0.7, 6), around(1.3, 6, seed=1)])))
    chart = fig05_final_losses.draw(of)
    assert chart.numbers["runs"].tolist() == [8, 12, 20]
    assert chart.numbers["bimodal"].tolist() == [False, True, True]
    assert chart.ours == {"clusters_part": "two clusters with 2^13 tasks at the fewest"}
    row = chart.numbers.iloc[1]
    assert (row["low_share"], row["high_share"]) == (0.5, 0.5) and row["low_mean"] == pytest.approx(0.7, abs=0.03)
    assert "K = 2^10: no two clusters" in chart.caption
    assert "50% of the runs around 0.7" in chart.caption and "All numbers of tasks: two clusters" in chart.caption
    strip, histogram = chart.figure.axes
    assert [len(dots.get_offsets()) for dots in strip.collections] == [8, 12]
    losses = np.sort(np.concatenate([dots.get_offsets()[:, 1] for dots in strip.collections]))
    np.testing.assert_allclose(losses, np.sort(of.table["last_loss_ema"]))
    bars = {bar.get_facecolor() for bar in histogram.patches}
    assert len(bars) == 2 and sum(bar.get_width() for bar in histogram.patches) == 20


def test_one_cluster_is_said(make_losses):
    chart = fig05_final_losses.draw(study.load(make_losses(1024, around(1.3, 12))))
    assert chart.numbers["bimodal"].tolist() == [False] and "K = 2^10: no two clusters (p = " in chart.caption
    assert chart.ours == {"clusters_part": "no two clusters, up to 2^10 tasks"}
    assert COLOURS[1] not in {bar.get_facecolor() for bar in chart.figure.axes[1].patches}


def test_eight_seeds_that_are_done_are_demanded(make_losses):
    make_losses(1024, around(1.3, 7))
    chart = fig05_final_losses.draw(study.load(make_losses(2048, around(1.3, 9), ended="DIVERGED")))
    assert chart.figure is None and "8 seeds of the same number of tasks that are done" in chart.caption


def test_losses_that_are_not_finite_do_not_count(make_losses):
    chart = fig05_final_losses.draw(study.load(make_losses(1024, [*around(1.3, 9), float("nan")])))
    assert chart.numbers["runs"].tolist() == [9] and "1 of 10 runs are not done" in chart.caption
