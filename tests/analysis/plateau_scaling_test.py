import numpy as np
import pytest

from gpicl_flax.analysis import plateau_scaling, study
from gpicl_flax.analysis.groups import BY_TRAINING_LOSS


@pytest.fixture
def batches(make_run, tmp_path):
    """Plateaus of 2,000 (B / 8)^-0.5 steps, about, of two numbers of tasks; those of B = 8 mostly outlast 1,800 steps."""
    rng = np.random.default_rng(0)
    for num_tasks in (2**16, None):
        for batch in (8, 16, 32, 64, 128):
            for seed in range(3):
                left_at = 10 * round(200 * (batch / 8) ** -0.5 * np.exp(0.1 * rng.normal()))
                make_run(
                    tmp_path / f"{num_tasks}_{batch}_{seed}",
                    num_tasks=num_tasks,
                    task_batch_size=batch,
                    left_at=left_at if left_at <= 1800 else None,
                    steps=1800 if left_at > 1800 else left_at,
                    seed=seed,
                    diagnostics_period=None,
                    config=f"TaskDistribution.task_batch_size = {batch}",
                )
    return study.load(tmp_path)


def test_batch_sizes_do_not_divide_what_is_fitted(batches):
    table = plateau_scaling.numbers(batches, BY_TRAINING_LOSS)
    assert table["num_tasks"].tolist() == [2**16, float("inf")] and table["runs"].tolist() == [15, 15]
    assert (table["left"] < 15).all() and (table["why"] == "").all()
    assert table["exponent"].tolist() == pytest.approx([-0.5, -0.5], abs=0.1)


def test_steps_and_tasks_are_drawn_with_their_lines(batches):
    chart = plateau_scaling.draw(batches)
    steps, tasks = chart.figure.axes
    for axes, unit in ((steps, 1), (tasks, 128)):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        lines = [line for line in axes.get_lines() if line.get_marker() == "None"]
        assert [line.get_xdata().tolist() for line in lines] == [[8, 128]] * 2
        for line in lines:
            assert line.get_ydata()[1] == pytest.approx(500 * unit, rel=0.2)
        assert [line for line in axes.get_lines() if line.get_marker() == "^" and len(line.get_xdata())]
    assert (
        "K = 2^16: the plateau lasts for B^-0." in chart.caption
        and "larger batches leave it after more tasks" in chart.caption
    )
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == ["2^16", "unbounded"]


def test_a_group_without_a_fit_says_why(make_run, tmp_path):
    for batch in (8, 16):
        make_run(
            tmp_path / str(batch),
            task_batch_size=batch,
            left_at=None,
            config=f"TaskDistribution.task_batch_size = {batch}",
        )
    chart = plateau_scaling.draw(study.load(tmp_path))
    assert "K = unbounded: no fit, 0 of 2 runs have left their plateau, and a fit takes 4." in chart.caption


def test_one_batch_size_is_not_drawn(make_run, tmp_path):
    make_run(tmp_path / "run")
    chart = plateau_scaling.draw(study.load(tmp_path))
    assert chart.figure is None and "two task batch sizes or more" in chart.caption
