import re

import numpy as np
import pytest

from gpicl_flax.analysis.data import plateau_laws, study
from gpicl_flax.analysis.figures import fig08_plateau_scaling


@pytest.fixture
def batches(make_run, tmp_path):
    """Plateaus of about 2,000 (B / 8)^-0.5 steps, of two numbers of tasks.

    Those of B = 8 mostly outlast 1,800 steps.
    """
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


def test_power_laws_are_of_all_runs_of_all_batch_sizes(batches):
    laws = plateau_laws.laws(plateau_laws.numbers(batches))
    assert laws["num_tasks"].tolist() == [2**16, float("inf")] and laws["runs"].tolist() == [15, 15]
    assert (laws["left"] < 15).all() and (laws["no_law"] == "").all()
    assert laws["exponent"].tolist() == pytest.approx([-0.5, -0.5], abs=0.1)


def test_power_laws_are_drawn_and_said(batches):
    chart = fig08_plateau_scaling.draw(batches)
    steps, _, seen, _ = chart.figure.axes
    for axes, unit in ((steps, 1), (seen, 128)):
        lines = [
            line for line in axes.get_lines() if line.get_linewidth() == 0.8 and line.get_xdata().tolist() == [3, 7]
        ]
        assert len(lines) == 2
        for line in lines:
            assert line.get_ydata()[1] == pytest.approx(500 * unit, rel=0.2)
    assert "power law" in [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert "K = 2^16: the plateau lasts for B^-0." in chart.caption
    assert "larger batches leave it after more tasks" in chart.caption
    for key, value in (("plateau_by_batch_size", -0.5), ("tasks_seen_by_batch_size", 0.5)):
        first, second = re.findall(r"B\^(-?[0-9.]+) \[", chart.ours[key])
        assert value - 0.1 < float(first) <= float(second) < value + 0.1 and "of 2 power laws" in chart.ours[key]


def test_a_group_without_a_fit_says_why(make_run, tmp_path):
    for batch in (8, 16):
        config = f"TaskDistribution.task_batch_size = {batch}"
        make_run(tmp_path / str(batch), task_batch_size=batch, left_at=None, config=config)
    chart = fig08_plateau_scaling.draw(study.load(tmp_path))
    why = "0 of 2 runs have left their plateau, and a fit takes 4"
    assert f"K = unbounded: no fit, {why}." in chart.caption
    assert set(chart.ours.values()) == {f"no power law: {why}"}


def test_power_laws_of_the_number_of_tasks(make_run, tmp_path):
    rng = np.random.default_rng(0)
    for num_tasks in (4, 16, 64, 256, 1024, None):
        for batch in (8, 16):
            for seed in range(3):
                left_at = 10 * round((num_tasks or 1) ** 0.5 * batch * np.exp(0.1 * rng.normal()) / 4)
                make_run(
                    tmp_path / f"{num_tasks}_{batch}_{seed}",
                    num_tasks=num_tasks,
                    task_batch_size=batch,
                    left_at=left_at,
                    steps=left_at,
                    seed=seed,
                    diagnostics_period=None,
                    config=f"TaskDistribution.task_batch_size = {batch}",
                )
    of = study.load(tmp_path)
    table = plateau_laws.numbers(of)
    laws = plateau_laws.laws_by_tasks(table)
    assert laws["task_batch_size"].tolist() == [8, 16] and laws["runs"].tolist() == [15, 15]  # without unbounded ones
    assert laws["exponent"].tolist() == pytest.approx([0.5, 0.5], abs=0.1)
    assert laws["coefficient"].tolist() == pytest.approx([20, 40], rel=0.3)
    assert (table.loc[np.isinf(table["num_tasks"]), "tasks_exponent"].notna()).all()
    chart = fig08_plateau_scaling.draw(of)
    assert re.search(r"B = 8: the plateau lasts for K\^0\.[45]\d \[", chart.caption)
    assert "K = 2^4: no fit, 2 sizes, where a law takes 5." in chart.caption
    _, steps, _, seen = chart.figure.axes
    for axes, factor in ((steps, 1), (seen, 8)):
        lines = [x for x in axes.get_lines() if x.get_linewidth() == 0.8 and x.get_xdata().tolist() == [2, 10]]
        assert len(lines) == 2
        assert lines[0].get_ydata() == pytest.approx([40 * factor, 640 * factor], rel=0.3)
