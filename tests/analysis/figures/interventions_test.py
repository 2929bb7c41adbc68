"""Each figure by what it draws: the data of its lines, not its pixels."""

import json
import math

import numpy as np
import pytest

from gpicl_flax.analysis.data import heads, one_run, study
from gpicl_flax.analysis.data.groups import BY_TRAINING_LOSS, BY_UNSEEN_TASKS
from gpicl_flax.analysis.figures import (
    accuracy_cost,
    diagnostics,
    matching_growth,
    phase_diagram,
    plateau_lengths,
    survival_curves,
)
from gpicl_flax.analysis.figures.chart import BLACK, COLOURS


def lines(axes, **properties):
    """The lines whose properties have these values."""
    found = axes.get_lines()
    return [line for line in found if all(getattr(line, f"get_{key}")() == x for key, x in properties.items())]


@pytest.fixture
def plateaus(make_run, tmp_path):
    """Paper leaves at 80 or not within 100 steps, matched at 20, 30 and 40."""
    for seed, left_at in enumerate((80, None, None)):
        make_run(tmp_path / f"paper{seed}", left_at=left_at, seed=seed, labels={"intervention": "paper"})
    for seed, left_at in enumerate((20, 30, 40)):
        labels = {"intervention": "matched"}
        make_run(tmp_path / f"matched{seed}", left_at=left_at, unseen_left_at=60, seed=seed, labels=labels)
    return study.load(tmp_path)


def test_survival_curves_fall_where_runs_leave(plateaus):
    chart = survival_curves.draw(plateaus, BY_TRAINING_LOSS)
    (axes,) = chart.figure.axes
    paper, matched = (lines(axes, color=colour, drawstyle="steps-post")[0] for colour in (BLACK, COLOURS[0]))
    np.testing.assert_array_equal(paper.get_xdata()[1:], [80, 100])
    np.testing.assert_allclose(paper.get_ydata(), [1, 2 / 3, 2 / 3], atol=0.0101)  # curves are kept apart by a shift
    np.testing.assert_array_equal(matched.get_xdata()[1:], [20, 30, 40])
    np.testing.assert_allclose(matched.get_ydata(), [1, 2 / 3, 1 / 3, 0], atol=0.0101)
    (ticks,) = lines(axes, color=BLACK, marker="|")
    np.testing.assert_array_equal(ticks.get_xdata(), [100, 100])
    assert axes.get_xscale() == "log" and axes.get_title() == "digits"
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == ["paper", "matched"]
    assert chart.numbers.query("intervention == 'matched'")["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_survival_curves_of_three_panels_leave_no_empty_one(make_run, tmp_path):
    for number, dataset in enumerate(("digits", "mnist", "random")):
        make_run(tmp_path / dataset, left_at=20 * (number + 1), base_dataset={"name": dataset})
    drawn = survival_curves.draw(study.load(tmp_path), BY_TRAINING_LOSS)
    assert [axes.get_title() for axes in drawn.figure.axes] == ["digits", "mnist", "random"]


def test_survival_by_unseen_tasks_has_its_own_steps(plateaus):
    (axes,) = survival_curves.draw(plateaus, BY_UNSEEN_TASKS).figure.axes
    (matched,) = lines(axes, color=COLOURS[0], drawstyle="steps-post")
    assert matched.get_xdata()[1:].tolist() == [60]


def test_figures_by_training_loss_say_what_it_cannot_compare(plateaus):
    for draw in (survival_curves.draw, plateau_lengths.draw):
        assert "curriculum" in draw(plateaus, BY_TRAINING_LOSS).caption
        assert "curriculum" not in draw(plateaus, BY_UNSEEN_TASKS).caption


def test_medians_and_speed_ups(plateaus):
    chart = plateau_lengths.draw(plateaus, BY_TRAINING_LOSS)
    left, right = chart.figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["paper", "matched"]
    assert [line.get_xdata()[0] for line in lines(left, color=BLACK, marker="|")] == [30]
    assert [line.get_xdata()[0] for line in lines(left, color=BLACK, marker="D")] == [100]  # beyond the budget
    seeds = {tuple(line.get_xdata()) for line in lines(left, marker="o")}
    assert {(80,), (20, 30, 40)} <= seeds
    assert (100, 100) in {tuple(line.get_xdata()) for line in lines(left, color=COLOURS[1], marker=">")}
    (ratio,) = lines(right, marker="D")
    assert ratio.get_xdata()[0] == pytest.approx(100 / 30) and ratio.get_markerfacecolor() == "white"
    assert lines(right, marker=">")  # an arrow: a lower bound
    assert [text.get_text() for text in right.texts] == ["", "at least 3.3x"]


def test_the_table_of_medians_in_words(plateaus):
    paper, matched = (row for _, row in plateau_lengths.numbers(plateaus, BY_TRAINING_LOSS).iterrows())
    assert plateau_lengths.median_in_words(paper) == "> 100 [80, > 100]"
    assert plateau_lengths.median_in_words(matched) == "30 [20, unbounded]"
    assert plateau_lengths.speed_up_in_words(paper) == ""
    assert plateau_lengths.speed_up_in_words(matched) == "at least 3.3x"  # three runs have no interval
    known = matched.to_dict() | {"speed_up_low": 2.0, "speed_up_high": math.inf}
    assert plateau_lengths.speed_up_in_words(known) == "at least 3.3x [2.0, unbounded]"
    assert matched["p_value"] == pytest.approx(0.1)  # the least of three against three


def test_without_a_baseline_there_are_medians_alone(make_run, tmp_path):
    for seed in range(2):
        make_run(tmp_path / str(seed), seed=seed, labels={"intervention": "matched"})
    chart = plateau_lengths.draw(study.load(tmp_path), BY_TRAINING_LOSS)
    assert len(chart.figure.axes) == 1 and "no speed-up" in chart.caption


def test_a_figure_without_data_says_why(make_run, tmp_path):
    make_run(tmp_path / "run", diagnostics_period=None, evaluations={})
    of = study.load(tmp_path)
    for chart in (
        survival_curves.draw(of, BY_UNSEEN_TASKS),
        plateau_lengths.draw(of, BY_UNSEEN_TASKS),
        accuracy_cost.draw(of),
    ):
        assert chart.figure is None and chart.caption.startswith("No run")
    assert "no run tells its number of tasks" in phase_diagram.draw(of).caption
    make_run(tmp_path / "run")
    assert "same number of tasks" in phase_diagram.draw(study.load(tmp_path)).caption


@pytest.fixture
def costs(make_run, make_curve, tmp_path):
    """Paper leaves at 60, matched at 20, one matched run never; the accuracy of an evaluation is its step over 200."""
    evaluations = {
        step: [
            make_curve("seen"),
            make_curve("unseen", last=step / 200),
            make_curve("unseen", "other", last=step / 400),
        ]
        for step in range(20, 101, 20)
    }
    for name, left_at in (("paper", 60), ("matched", 20), ("matched_never", None)):
        labels = {"intervention": name.partition("_")[0]}
        options = {"left_at": left_at, "diagnostics_period": None, "evaluations": evaluations}
        make_run(tmp_path / name, labels=labels, **options)
    return study.load(tmp_path)


def test_costs_are_compared_at_equal_steps_and_equally_long_after_the_drop(costs):
    table = accuracy_cost.numbers(costs, after_drop=30).set_index(["run_id", "at"])
    assert table.loc[("paper", accuracy_cost.TOTAL), "step"] == 100
    assert table.loc[("paper", accuracy_cost.TOTAL), ["unseen_tasks", "unseen_datasets"]].tolist() == [0.5, 0.25]
    after = table.loc[("matched", accuracy_cost.AFTER_DROP)]
    assert (after["step"], after["steps_after_drop"], after["unseen_tasks"]) == (60, 40, 0.3)
    assert table.loc[("paper", accuracy_cost.AFTER_DROP), "step"] == 100
    assert math.isnan(table.loc[("matched_never", accuracy_cost.AFTER_DROP), "step"])


def test_the_figure_of_costs_shows_the_means_and_the_paper(costs):
    chart = accuracy_cost.draw(costs, after_drop=30)
    tasks, datasets = chart.figure.axes
    means = sorted((line.get_ydata()[0], line.get_xdata()[0]) for line in lines(tasks, marker="D"))
    assert means == [(pytest.approx(0.17), 0.5), (pytest.approx(1.17), 0.3)]
    papers = [
        line.get_xdata()[0] for line in lines(datasets) if len(set(line.get_xdata())) == 1 and line.get_ydata()[-1] == 1
    ]
    assert 0.25 in papers
    assert "without a drop: matched_never." in chart.caption
    assert "up to 40 steps after" in chart.caption


def test_a_late_drop_leaves_a_run_without_a_comparison(costs):
    chart = accuracy_cost.draw(costs, after_drop=50)
    assert "without a drop: matched_never, paper." in chart.caption


def test_unfinished_runs_do_not_move_the_common_total(make_run, make_curve, tmp_path):
    curves = [make_curve("unseen")]
    for name, steps in (("a", 100), ("b", 100), ("c", 50)):
        make_run(tmp_path / name, steps=steps, evaluations={step: curves for step in (50, 100) if step <= steps})
    table = accuracy_cost.numbers(study.load(tmp_path)).query("at == 'total'").set_index("run_id")["step"]
    assert table[["a", "b"]].tolist() == [100, 100] and math.isnan(table["c"])


def test_interventions_with_fewer_steps_set_the_common_total(make_run, make_curve, tmp_path):
    for name, last, ended in (
        ("paper", 100, "DONE"),
        ("matched", 50, "DONE"),
        ("begun", 20, None),
        ("untested", 0, None),
    ):
        for seed in range(1 if name == "matched" else 3):
            evaluations = {step: [make_curve("unseen")] for step in range(10, last + 1, 10)}
            options = {"steps": 100, "ended": ended, "evaluations": evaluations, "labels": {"intervention": name}}
            make_run(tmp_path / f"{name}{seed}", seed=seed, **options)
    table = accuracy_cost.numbers(study.load(tmp_path)).query("at == 'total'").set_index("run_id")["step"]
    assert set(table.dropna()) == {50}
    assert sorted(table.dropna().index) == ["matched0", "paper0", "paper1", "paper2"]


def test_runs_are_compared_so_long_after_the_drop_as_the_shortest_intervention_can_be(make_run, tmp_path):
    for name, steps in (("paper", 1000), ("longer_paper", 2000), ("matched", 120)):
        make_run(tmp_path / name, steps=steps, labels={"intervention": name.rpartition("_")[2]})
    assert accuracy_cost.steps_after_drop(study.load(tmp_path)) == 30
    make_run(tmp_path / "matched").run_info.unlink()
    assert accuracy_cost.steps_after_drop(study.load(tmp_path)) == 500


def test_phases_against_the_number_of_tasks(make_run, make_curve, tmp_path):
    for num_tasks, left_at, last in ((16, 50, 0.15), (256, None, 0.1), (4096, 50, 0.6), (None, 50, 0.7)):
        evaluations = {100: [make_curve("unseen", last=last)]}
        make_run(tmp_path / str(num_tasks), num_tasks=num_tasks, left_at=left_at, evaluations=evaluations)
    chart = phase_diagram.draw(study.load(tmp_path))
    above, below = chart.figure.axes
    bounded, unbounded = lines(above)[:2]
    np.testing.assert_allclose(bounded.get_xdata(), [4, 8, 12])
    np.testing.assert_allclose(bounded.get_ydata(), [0.05, 0, 0.5])
    assert unbounded.get_xdata()[0] > 12 and unbounded.get_ydata()[0] == pytest.approx(0.6)
    markers = [line.get_marker() for line in sorted(lines(below), key=lambda line: line.get_xdata())]
    assert markers == ["x", "_", "o", "o"]
    assert [text.get_text() for text in below.get_xticklabels()] == ["$2^{4}$", "$2^{8}$", "$2^{12}$", "unbounded"]


def test_diagnostics_of_a_run(make_run, tmp_path):
    run = one_run.read(make_run(tmp_path / "run", left_at=50, unseen_left_at=80))
    chart = diagnostics.draw(run)
    loss, matching, same_class, previous, blocks, others = sorted(chart.figure.axes, key=_order)
    drawn = {line.get_label(): line for line in loss.get_lines()}
    assert drawn["training, average"].get_xdata().tolist() == run.metrics.index.tolist()
    np.testing.assert_allclose(drawn["unseen tasks"].get_ydata(), [2.25, 2.25, 2.25, 2.09, 2.09])
    for axes in chart.figure.axes:
        marks = {line.get_label(): line.get_xdata()[0] for line in axes.get_lines() if "plateau" in line.get_label()}
        assert marks == {"plateau left, by training loss": 50, "plateau left, by loss on unseen tasks": 80}
        assert axes.get_xlim() == loss.get_xlim()
    heads = {line.get_label(): line for line in matching.get_lines()}
    assert heads["layer 1, head 0"].get_ydata().tolist() == [0.5] * 5
    assert heads["layer 0, head 0"].get_color() == heads["layer 0, head 1"].get_color() == COLOURS[0]
    assert heads["layer 1, head 0"].get_color() == COLOURS[1]
    assert [line.get_ydata()[0] for line in lines(same_class, label="uniform attention")] == [0.1]
    assert not lines(previous, label="uniform attention")
    assert lines(blocks, label="query")[0].get_ydata()[0] == 0.2 and blocks.get_yscale() == "log"
    assert lines(others, label="embedding")[0].get_ydata()[0] == 0.1
    assert blocks.get_ylim() == others.get_ylim() and others.get_ylim()[0] < 0.1 < 0.2 < others.get_ylim()[1]


def _order(axes):
    names = ["entropy", "matching", "examples of the class", "previous", "block 0", "other parts"]
    return next(index for index, name in enumerate(names) if name in axes.get_ylabel())


def test_what_heads_compare_while_runs_stand(plateaus):
    chart = matching_growth.draw(plateaus)
    score, ratio = chart.figure.axes
    for axes, expected in ((score, 0.75), (ratio, 7.5)):  # attention of a tenth would be uniform
        drawn = [line for line in axes.get_lines() if line.get_marker() != "o"]
        assert [line.get_color() for line in drawn] == [BLACK] * 3 + [COLOURS[0]] * 3
        for line in drawn:
            assert line.get_xdata().tolist() == [20, 40, 60, 80, 100]
            np.testing.assert_allclose(line.get_ydata(), expected)
        # Only runs that left have a circle, by the loss on unseen tasks.
        circles = lines(axes, marker="o")
        assert [line.get_xdata()[0] for line in circles] == [60] * 3
        np.testing.assert_allclose([line.get_ydata()[0] for line in circles], expected)


def test_a_head_that_looks_away_from_its_class_is_the_farthest_where_it_is():
    values = {"same_class_uniform": 0.1, "same_class_attention": [[0.02, 0.3], [0.1, None]]}
    assert heads._ratio(values) == pytest.approx(0.2)
    assert np.isnan(heads._ratio({"matching_score": [[0.1]]}))
    assert heads._highest([[0.1, None], [0.3, 0.2]]) == 0.3


def test_a_model_without_attention_has_fewer_panels(make_run, tmp_path):
    folder = make_run(tmp_path / "run", diagnostics_period=None)
    diagnosed = {"unseen_loss": 1.2, "grad_norms": {"logits": 1.0}}
    row = {"step": 110, "loss": 1, "loss_ema": 1.4, "diagnostics": diagnosed}
    folder.metrics.write_text(folder.metrics.read_text() + json.dumps(row) + "\n")
    assert len(diagnostics.draw(one_run.read(folder)).figure.axes) == 2
