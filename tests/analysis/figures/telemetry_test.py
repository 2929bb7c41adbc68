"""The figures of telemetry by what they draw, from runs with known numbers."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from gpicl_flax.analysis.data import one_run, study
from gpicl_flax.analysis.figures import fig09_gradient_dynamics, fig15_adam_moments, fig17_tensor_gradients, registry
from gpicl_flax.analysis.figures.chart import COLOURS
from gpicl_flax.analysis.report import drawing, report
from gpicl_flax.records.run_folder import RunFolder

TENSORS = ("block_0/query/kernel", "block_2/query/kernel", "block_10/query/kernel", "logits/bias")


def measured(step: int, moments: bool = True, scale: float = 1.0) -> dict:
    """Telemetry in which the norm of a tensor grows tenfold from one to the next, and all with the step."""
    whole = {"grad_norm": scale * step, "grad_cosine": 0.5, "update_norm": 2.0, "update_cosine": 0.9}
    tensors = {
        name: whole | {"grad_norm": step * 10.0**index, "grad_cosine": index / 10} for index, name in enumerate(TENSORS)
    }
    norms = {"first_moment_norm": step / 10, "second_moment_norm": step / 1000} if moments else {}
    return whole | {"initial_distance": math.sqrt(step), "tensors": tensors} | norms


def with_telemetry(folder, *, change=lambda step, values: values, **settings):
    """The run with telemetry in its rows, every 20 steps."""
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    for row in rows:
        if row["step"] % 20 == 0:
            row["telemetry"] = change(row["step"], measured(row["step"], **settings))
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def biases(make_run, tmp_path):
    """Runs of four biases and two seeds; the gradient is the smaller, the less biased."""
    for p in (0.0, 0.1, 0.9, 1.0):
        for seed in (0, 1):
            folder = make_run(tmp_path / f"{p}_{seed}", permute_labels_prob=p, seed=seed, num_tasks=2**16)
            with_telemetry(folder, scale=(2 - p) * (1 + seed))
    return study.load(tmp_path)


def panel(chart, words):
    (axes,) = [axes for axes in chart.figure.axes if axes.get_ylabel().replace("\n", " ").startswith(words)]
    return axes


def test_one_run_of_each_bias_is_a_curve_in_every_panel(biases):
    chart = fig09_gradient_dynamics.draw(biases)
    assert list(dict.fromkeys(chart.numbers["run"])) == ["p = 0", "p = 0.1", "p = 0.9", "p = 1"]
    sums = panel(chart, "L2 norm of the gradient, cumulative").get_lines()
    assert [line.get_color() for line in sums] == list(COLOURS[:4])
    steps = np.arange(20, 101, 20)
    for p, line in zip((0.0, 0.1, 0.9, 1.0), sums, strict=True):  # of the lower seed
        np.testing.assert_array_equal(line.get_xdata(), steps)
        np.testing.assert_allclose(line.get_ydata(), 20 * np.cumsum((2 - p) * steps))
    for words, value in (("cosine of consecutive gradients, smoothed", 0.5), ("L2 norm of the update, smoothed", 2)):
        np.testing.assert_allclose(panel(chart, words).get_lines()[0].get_ydata(), value)
    distance = panel(chart, "L2 distance from the initial").get_lines()[0]
    np.testing.assert_allclose(distance.get_ydata(), np.sqrt(steps))
    assert panel(chart, "training loss").get_lines()[0].get_ydata().tolist() == [2.25, 2.25, 1.5, 1.5, 1.5]
    unseen = panel(chart, "loss on unseen tasks")
    assert unseen.get_yscale() == "log" and unseen.get_lines()[3].get_ydata().tolist() == [2.25] * 5


def test_smoothing_keeps_what_is_constant_and_passes_over_what_is_missing():
    steps = np.arange(400)
    values = pd.Series(np.where(steps % 7 == 3, np.nan, 3.0), index=steps)
    np.testing.assert_allclose(fig09_gradient_dynamics._smoothed(values), 3.0)
    noisy = pd.Series(np.random.default_rng(0).normal(size=400))
    smooth = fig09_gradient_dynamics._smoothed(noisy)
    weights = np.exp(-((steps - 200.0) ** 2) / (2 * 4.0**2))  # 1% of 400
    assert smooth[200] == pytest.approx(weights @ noisy / weights.sum(), abs=2e-3)
    assert np.isnan(fig09_gradient_dynamics._smoothed(values * np.nan)).all()


def test_what_is_not_finite_interrupts_no_curve(make_run, tmp_path):
    def without(step, values):
        return values | ({"grad_cosine": None, "grad_norm": math.nan, "tensors": {"a": None}} if step == 40 else {})

    run = one_run.read(with_telemetry(make_run(tmp_path / "run", ended="DIVERGED"), change=without))
    table = fig09_gradient_dynamics.numbers(run).set_index("step")
    np.testing.assert_allclose(table["cumulative_grad_cosine"], [10, 10, 20, 30, 40])
    np.testing.assert_allclose(table["smoothed_grad_cosine"], 0.5)
    assert fig17_tensor_gradients.draw_run(run).figure and fig15_adam_moments.draw_run(run).figure
    rows = fig17_tensor_gradients.numbers(run, None)
    assert rows["measurements"].unique().tolist() == [4]


def test_adam_s_moments_have_a_line_at_the_drop(make_run, tmp_path):
    run = one_run.read(with_telemetry(make_run(tmp_path / "run", left_at=50)))
    chart = fig15_adam_moments.draw_run(run)
    for axes, per_step in zip(chart.figure.axes, (1 / 10, 1 / 1000), strict=True):
        curve, drop = axes.get_lines()
        np.testing.assert_allclose(curve.get_ydata(), per_step * np.arange(20, 101, 20))
        assert drop.get_xdata() == [50, 50] and drop.get_linestyle() == "--"
    assert "by its training loss at step 50" in chart.caption
    still = one_run.read(with_telemetry(make_run(tmp_path / "still", left_at=None)))
    assert all(len(axes.get_lines()) == 1 for axes in fig15_adam_moments.draw_run(still).figure.axes)
    other = one_run.read(with_telemetry(make_run(tmp_path / "sgd"), moments=False))
    assert (
        fig15_adam_moments.draw_run(other).figure is None
        and "Adam's two moments" in fig15_adam_moments.draw_run(other).caption
    )


def test_every_tensor_has_a_row_before_and_after_the_drop(make_run, tmp_path):
    run = one_run.read(with_telemetry(make_run(tmp_path / "run", left_at=60)))
    chart = fig17_tensor_gradients.draw_run(run)
    norms, cosines = chart.figure.axes
    assert [text.get_text() for text in norms.get_yticklabels()] == list(TENSORS)  # block_10 after block_2
    assert norms.get_xscale() == "log" and cosines.get_xscale() == "linear"
    before, after = norms.get_lines()
    np.testing.assert_allclose(before.get_xdata(), [30 * 10**i for i in range(4)])  # of steps 20 and 40
    np.testing.assert_allclose(after.get_xdata(), [80 * 10**i for i in range(4)])  # of steps 60, 80 and 100
    np.testing.assert_allclose(cosines.get_lines()[0].get_xdata(), [0, 0.1, 0.2, 0.3])
    numbers = chart.numbers.query("tensor == 'logits/bias' and quantity == 'grad_norm'")
    assert numbers["low"].tolist() == [22_000, 64_000] and numbers["high"].tolist() == [38_000, 96_000]
    one = fig17_tensor_gradients.draw_run(one_run.read(with_telemetry(make_run(tmp_path / "still", left_at=None))))
    assert set(one.numbers["phase"]) == {"on the plateau"}


def test_of_repeated_steps_the_last_count(make_run, tmp_path):
    folder = with_telemetry(make_run(tmp_path / "run"))
    again = {"step": 60, "loss": 2.0, "loss_ema": 2.0, "telemetry": measured(60, scale=7)}
    folder.metrics.write_text(folder.metrics.read_text() + json.dumps(again) + "\n" + '{"step": 70, "telemetry": {"gr')
    run = one_run.read(folder)
    assert run.telemetry.index.tolist() == [20, 40, 60] and run.telemetry["", "grad_norm"].tolist() == [20, 40, 420]
    assert fig09_gradient_dynamics.draw_run(run).numbers["initial_distance"].notna().sum() == 3


def test_damaged_telemetry_is_missing(make_run, tmp_path):
    damages = {20: "what", 40: {"tensors": []}, 60: {}, 80: {"grad_norm": "x", "tensors": {"logits/bias": 3}}}
    folder = with_telemetry(make_run(tmp_path / "run"), change=lambda step, values: damages.get(step, values))
    run = one_run.read(folder)
    assert run.telemetry.index.tolist() == [40, 60, 80, 100]
    assert run.telemetry["", "grad_norm"].tolist()[-1] == 100 and run.telemetry["", "grad_norm"].notna().sum() == 1
    assert fig09_gradient_dynamics.draw_run(run).figure and fig17_tensor_gradients.draw_run(run).figure


def test_more_runs_than_colours_allow_are_counted(make_run, tmp_path):
    for index in range(10):
        with_telemetry(make_run(tmp_path / str(index), labels={"intervention": f"i{index}"}))
    chart = fig09_gradient_dynamics.draw(study.load(tmp_path))
    assert chart.numbers["run"].nunique() == 8 and "2 further runs are not drawn" in chart.caption


@pytest.mark.slow
def test_a_report_has_what_there_is(make_run, tmp_path):
    """Adam's moments and the gradients by tensor are of a run that has left its plateau, where there is one."""
    for name, left_at in (("a", None), ("b", 50), ("c", 50)):
        with_telemetry(
            make_run(tmp_path / name, labels={"intervention": name}, left_at=left_at, diagnostics_period=None)
        )
    make_run(tmp_path / "d", labels={"intervention": "d"}, ended=None)
    found = study.load(tmp_path)
    charts = (job(found) for job in drawing.jobs(found, registry.paper_figures()))
    of_the_study = {chart.name: chart for chart in charts}
    drawn = {name for name, chart in of_the_study.items() if chart.figure}
    assert drawn > {"gradient_dynamics", "adam_moments_b", "tensor_gradients_b"}
    assert [of_the_study[name].paper for name in ("gradient_dynamics", "adam_moments_b", "tensor_gradients_b")] == [
        "Figures 9, 16", "Figure 15", "Figure 17",
    ]  # fmt: skip
    of_a, of_d = (
        {chart.name: chart for chart in report.charts_of_run(one_run.read(RunFolder(tmp_path / name)))} for name in "ad"
    )
    names = {"gradient_dynamics", "adam_moments_a", "tensor_gradients_a"}
    assert {name for name, chart in of_a.items() if chart.figure} == names | {"learning_curve"}
    lacking = [chart for chart in of_d.values() if "Needs a run with telemetry" in chart.caption]
    assert len(lacking) == 3 and not any(chart.figure for chart in lacking)
