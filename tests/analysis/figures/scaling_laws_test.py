"""Scaling laws from run folders."""

import numpy as np
import pytest

from gpicl_flax.analysis.data import line_laws, size_lines, study
from gpicl_flax.analysis.data.configurations import PARAMETERS, STATE_PAPER
from gpicl_flax.analysis.data.size_lines import ACCURACY, COMPUTE, EXAMPLES, LOSS, TASKS
from gpicl_flax.analysis.figures import registry, scaling_laws
from gpicl_flax.analysis.report import insights
from gpicl_flax.analysis.stats import scaling_law

STATES = [2**n for n in (4, 6, 8, 10, 12)]


def accuracy(n, half=200.0, alpha=0.8):
    return 0.1 + 0.6 / (1 + (half / n) ** alpha)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(line_laws, "_DRAWS", 40)


@pytest.fixture
def make_runs(make_run, make_curve, tmp_path):
    """Writes a run for each dict of facts and each seed; a fact `n` tells its accuracy and loss."""

    def write(runs, seeds=3):
        rng = np.random.default_rng(0)
        for number, run_info in enumerate(runs):
            run_info = dict(run_info)
            n, at = run_info.pop("n"), run_info.get("steps", 100)
            for seed in range(seeds):
                last, loss = accuracy(n) + 0.01 * rng.normal(), 1 + 5 * n**-0.4 + 0.01 * rng.normal()
                curves = [make_curve("unseen", last=last, loss=loss)]
                make_run(
                    tmp_path / f"{number}_{seed}",
                    seed=seed,
                    evaluations={at: curves},
                    diagnostics_period=None,
                    **run_info,
                )
        return tmp_path

    return write


def of_state(states=STATES, **more):
    """Runs by their states; parameters grow unevenly beside them."""
    return [
        {"n": n, "state_size_paper": n, "state_size_exact": n, "parameters": 10 * n + 3000 * (place % 2 + place**2)}
        | more
        for place, n in enumerate(states)
    ]


def of_size(lines, size):
    return [line for line in lines if line.size == size]


def test_a_curve_and_a_band_for_each_architecture(make_runs):
    runs = of_state(model="LSTM") + of_state(model="Transformer") + of_state(STATES[:4], model="DeltaNet")
    of = study.load(make_runs(runs + of_state([2000], model="OnlineSGD")))
    chart = scaling_laws.draw(of)
    table = chart.numbers
    assert set(table["size"]) == {STATE_PAPER, PARAMETERS} and set(table["seeds"]) == {3}
    assert set(table["architecture"]) == {"LSTM", "Transformer", "DeltaNet"}  # no baselines
    states = table[table["size"] == STATE_PAPER].set_index("architecture")
    assert states["no_law"].tolist() == ["4 sizes, where a law takes 5", "", ""]
    for name in ("LSTM", "Transformer"):
        row = states.loc[name]
        for constant, true in (("top", 0.7), ("half", 200), ("alpha", 0.8)):
            assert row[f"{constant}_low"] <= row[constant] <= row[f"{constant}_high"]
            assert row[constant] == pytest.approx(true, rel=0.3)
    by_state, by_parameters = chart.figure.axes
    assert by_state.get_xlabel() == "state size, log scale"
    assert by_parameters.get_xlabel() == "parameter count, log scale"
    assert by_state.get_title() == "unseen tasks of digits"
    curves = [line for line in by_state.get_lines() if len(line.get_xdata()) == 80]
    points = [line for line in by_state.get_lines() if line.get_marker() == "o"]
    assert len(curves) == len(by_state.collections) - 3 == 2 and len(points) == 3
    row = states.loc["LSTM"]
    expected = accuracy(curves[0].get_xdata(), row["half"], row["alpha"]) - 0.1
    np.testing.assert_allclose(curves[0].get_ydata() - 0.1, expected * (row["top"] - 0.1) / 0.6, rtol=1e-6)
    unseen = "(unseen tasks of digits)"
    why = f"No law for DeltaNet against state size {unseen}, DeltaNet against parameter count {unseen}: 4 sizes, where"
    assert why in chart.caption
    assert "3 seeds" not in chart.caption and "Compute" not in chart.caption
    names = [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert sorted(names) == ["DeltaNet", "LSTM", "Transformer"]


def test_the_laws_of_losses_are_powers(make_runs):
    chart = scaling_laws.draw_loss(study.load(make_runs(of_state())))
    row = chart.numbers.set_index("size").loc[STATE_PAPER]
    assert row["law"] == "L = E + A n^-alpha" and row["E"] == pytest.approx(1, abs=0.15)
    assert row["alpha"] == pytest.approx(0.4, abs=0.1) and "alpha" in chart.caption
    assert chart.figure.axes[0].get_ylabel() == "cross entropy (nats)"


def test_the_size_that_predicts_the_largest_best_is_said(make_runs):
    of = study.load(make_runs(of_state() + of_state(model="LSTM"), seeds=4))
    (sentence,) = line_laws.sentences(line_laws.fitted(of, ACCURACY), ACCURACY)
    assert sentence.startswith("Unseen tasks of digits: laws in state size over 2 architectures miss the largest size")
    assert "; in parameter count by " in sentence and "points [" in sentence
    assert sentence in scaling_laws.draw(of).caption
    assert insights.large_state(of).because.endswith(sentence)


def test_fewer_than_five_sizes_are_refused_with_a_sentence(make_runs):
    of = study.load(make_runs(of_state(STATES[:4]), seeds=2))
    draws = [entry.draw for entry in registry.comparisons()]
    for draw in (scaling_laws.draw, scaling_laws.draw_loss):
        assert draws.count(draw) == 1
        chart = draw(of)
        assert chart.figure is None and "at least 5 sizes of one kind" in chart.caption
        assert chart.caption.endswith("These runs have at most 4.")
    assert "left out of the fit" not in insights.large_state(of).because
    with_one = study.load(make_runs(of_state(STATES[:1]), seeds=1))
    assert scaling_laws.draw(with_one).caption.startswith("Needs runs that are done")


def test_numbers_of_tasks_make_a_line_for_each_size_of_a_model(make_runs):
    runs = [
        {"n": tasks, "num_tasks": tasks, "settings": {"TaskDistribution.num_tasks": tasks}, "parameters": parameters}
        for tasks in (*STATES, None)
        for parameters in (1000, 2000)
        if tasks
    ]
    runs.append({"n": 9999, "num_tasks": None, "parameters": 1000, "settings": {"TaskDistribution.num_tasks": None}})
    lines = size_lines.lines(study.load(make_runs(runs)), ACCURACY)
    found = of_size(lines, TASKS)
    assert [line.architecture for line in found] == ["Transformer, 1,000 parameters", "Transformer, 2,000 parameters"]
    assert [line.sizes.tolist() for line in found] == [STATES, STATES]  # unbounded tasks have no place
    assert [line.condition for line in found] == ["", ""] and found[0].values.shape == (3, 5)
    assert {line.condition for line in of_size(lines, PARAMETERS)} >= {"2^4 tasks", "2^6 tasks"}


def test_steps_make_lines_of_examples_and_compute(make_runs):
    runs = [
        {"n": steps, "steps": steps, "parameters": parameters, "settings": {"Training.steps": steps}}
        for steps in (100, 200, 400, 800, 1600)
        for parameters in (1000, 2000)
    ]
    of = study.load(make_runs(runs))
    lines = size_lines.lines(of, LOSS)
    examples, compute = of_size(lines, EXAMPLES), of_size(lines, COMPUTE)
    steps = np.array([100, 200, 400, 800, 1600])
    assert [line.sizes.tolist() for line in examples] == [(steps * 8 * 5).tolist()] * 2
    assert [line.condition for line in examples] == ["", ""]
    (line,) = compute
    assert line.sizes.tolist() == (6 * 1000 * 40 * np.array([100, 200, 400, 800, 1600, 3200])).tolist()
    assert "Flops are an estimate" in scaling_laws.draw_loss(of).caption
    assert {x.condition for x in of_size(lines, PARAMETERS)} == {f"steps = {n}" for n in steps}


def test_without_different_numbers_of_examples_compute_says_what_parameters_say(make_runs):
    lines = size_lines.lines(study.load(make_runs(of_state())), ACCURACY)
    assert not of_size(lines, COMPUTE) and not of_size(lines, EXAMPLES) and not of_size(lines, TASKS)
    by_state, by_parameters = of_size(lines, STATE_PAPER) + of_size(lines, PARAMETERS)
    assert by_state.draw_seed == by_parameters.draw_seed and by_state.run_ids == by_parameters.run_ids


def test_seeds_that_lack_a_size_are_left_out(make_runs):
    path = make_runs(of_state())
    (path / "4_2" / "DONE").unlink()
    of = study.load(path)
    (line,) = of_size(size_lines.lines(of, ACCURACY), STATE_PAPER)
    assert line.values.shape == (2, 5) and line.seeds_left_out == 1
    assert "Seeds that were not run at all sizes of a line are left out (2)." in scaling_laws.draw(of).caption
    for seed in (0, 1):
        (path / f"{seed}_{seed}" / "DONE").unlink()
    found = line_laws.fitted(study.load(path), ACCURACY)
    assert {one.law for one in found} == {"no seed was run at all sizes"}


def test_one_seed_has_a_curve_without_a_band(make_runs):
    chart = scaling_laws.draw(study.load(make_runs(of_state(), seeds=1)))
    assert np.isnan(chart.numbers["alpha_low"]).all() and np.isfinite(chart.numbers["alpha"]).all()
    assert "That does not decide which predicts it best." in chart.caption and "nan" not in chart.caption


def test_laws_of_the_same_runs_share_their_draws(make_runs):
    found = line_laws.fitted(study.load(make_runs(of_state())), ACCURACY)
    first, second = (one.law for one in found)
    assert isinstance(first, scaling_law.Law) and np.array_equal(first.weights, second.weights)


def test_flops_that_runs_say_take_the_place_of_the_estimate(make_runs):
    runs = [{"n": n, "parameters": n, "steps": 100, "step_flops": 7 * n} for n in STATES]
    of = study.load(make_runs(runs))
    (line,) = of_size(size_lines.lines(of, LOSS), COMPUTE)
    assert line.sizes.tolist() == [7 * n * 100 for n in STATES]
    assert "Flops are those of matrix products" in scaling_laws.draw_loss(of).caption
