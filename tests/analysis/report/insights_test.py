"""The verdicts on the paper's insights."""

import itertools
import math

import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.report import insights
from gpicl_flax.analysis.report.insights import NOT_ENOUGH, NOT_SUPPORTED, SUPPORTED


@pytest.fixture
def find(make_run, make_curve, tmp_path):
    """Returns a function that finds what an insight says about runs.

    Each run is a number of tasks, its first and last accuracy on seen tasks, its last ones on unseen tasks of its own
    and of another base dataset (None: not tested), and further facts.
    """

    def found(insight, *runs, margin=0.05):
        for index, (num_tasks, first, seen, unseen, other, run_info) in enumerate(runs):
            curves = [
                make_curve("seen", first=first, last=seen, margin=margin),
                make_curve("unseen", last=unseen, margin=margin),
            ]
            curves += [make_curve("unseen", "other", last=other, margin=margin)] if other is not None else []
            run_info = {"num_tasks": num_tasks, "evaluations": {100: curves}} | run_info
            make_run(tmp_path / f"run{index}", **run_info)
        return insight(study.load(tmp_path))

    return found


def general(num_tasks, unseen=0.7, other=None, **run_info):
    return (num_tasks, 0.1, 0.8, unseen, other, run_info)


def identified(num_tasks, other=None, **run_info):
    return (num_tasks, 0.1, 0.8, 0.1, other, run_info)


def memorized(num_tasks, other=None, **run_info):
    return (num_tasks, 0.9, 0.95, 0.1, other, run_info)


def test_black_boxes_that_learn_support_the_first_insight(find):
    finding = find(insights.black_boxes, general(2**14), general(2**13, 0.6), identified(16))
    assert finding.verdict == SUPPORTED and finding.number == 1
    assert "Transformer trained on digits with 2^14 tasks" in finding.because
    assert "0.60 [0.53, 0.67]" in finding.because and "the threshold is 0.2" in finding.because
    assert "smallest number of tasks with which the mean gain reaches it is 2^13 (the paper: 2^13)" in finding.because


def test_many_tasks_without_learning_do_not_support_it(find):
    assert find(insights.black_boxes, identified(2**14), identified(16)).verdict == NOT_SUPPORTED


@pytest.mark.parametrize(
    "run",
    [
        identified(2**12),  # few tasks
        general(2**14, 0.32),  # an interval around the threshold
        general(2**14, model="VSML"),
        general(2**14, ended=None),
        general(2**14, ended="DIVERGED"),
        general(2**14, evaluations={}),
    ],
    ids=["few tasks", "wide interval", "no black box", "not ended", "diverged", "not tested"],
)
def test_what_is_not_enough_for_the_first_insight(find, run):
    finding = find(insights.black_boxes, run)
    assert finding.verdict == NOT_ENOUGH and finding.because.endswith(".")


def test_more_tasks_that_generalize_to_another_dataset_support_the_second_insight(find):
    finding = find(
        insights.augmentations, memorized(16, 0.1), general(2**14, other=0.6), general(None, other=0.1, model="LSTM")
    )
    assert finding.verdict == SUPPORTED
    assert "Transformer trained on digits with 2^14 tasks, tested on other" in finding.because
    assert "0.50 [0.43, 0.57] more accurate than the first, and 0.00 [-0.07, 0.07] with 2^4 tasks" in finding.because


def test_many_tasks_that_do_not_generalize_do_not_support_it(find):
    assert find(insights.augmentations, memorized(16, 0.1), general(2**14, other=0.15)).verdict == NOT_SUPPORTED


@pytest.mark.parametrize(
    "runs",
    [
        (general(2**14, other=0.6),),  # nothing to compare with
        (general(2**14), memorized(16)),  # no other base dataset
        (memorized(16, 0.1), memorized(256, 0.1)),  # few tasks
        (general(16, other=0.55), general(2**14, other=0.6)),  # no difference between them
        (memorized(16, 0.1, settings={"adam.eps": 1e-8}), general(2**14, other=0.6, settings={"adam.eps": 1e-16})),
    ],
    ids=["one number of tasks", "one base dataset", "few tasks", "no difference", "another difference"],
)
def test_what_is_not_enough_for_the_second_insight(find, runs):
    assert find(insights.augmentations, *runs).verdict == NOT_ENOUGH


def test_three_phases_in_order_support_the_third_insight(find):
    finding = find(insights.transitions, memorized(1), identified(16), identified(256), general(2**13), general(2**15))
    assert finding.verdict == SUPPORTED
    order = (
        "task memorization from 1 task on, task identification from 2^4 tasks on, "
        "general learning to learn from 2^13 tasks on"
    )
    assert order in finding.because


def test_phases_in_another_order_do_not_support_it(find):
    finding = find(insights.transitions, general(1), identified(16), memorized(256))
    assert finding.verdict == NOT_SUPPORTED and "again a former one" in finding.because


@pytest.mark.parametrize(
    "runs", [(), (general(2**13),), (identified(16), general(2**13))], ids=["none", "one phase", "two phases"]
)
def test_what_is_not_enough_for_the_third_insight(find, runs):
    finding = find(insights.transitions, *runs, general(4, ended=None))
    assert finding.verdict == NOT_ENOUGH
    assert "task memorization" in finding.because or not runs


def test_a_setting_of_its_own_has_its_own_order(find):
    """Other base datasets, or other models, are not other numbers of tasks."""
    lstm = {"model": "LSTM"}
    runs = (memorized(1), identified(16), general(2**13), general(4, **lstm), general(8, **lstm))
    assert find(insights.transitions, *runs).verdict == SUPPORTED


def sizes(make_curve, accuracy, models=("LSTM", "Transformer"), **run_info):
    """Makes runs of four state sizes and four parameter counts for each model; `accuracy` is a function of both."""
    for model in models:
        for number, (state, parameters) in enumerate(itertools.product((16, 64, 256, 1024), (1e3, 4e3, 16e3, 64e3))):
            last = accuracy(math.log2(state), math.log2(parameters)) + 0.002 * (number % 3)
            curves = [make_curve("seen"), make_curve("unseen", last=last), make_curve("unseen", "other")]
            sizes = {"state_size_paper": state, "state_size_exact": 2 * state, "parameters": int(parameters)}
            yield {"model": model, "evaluations": {100: curves}, "diagnostics_period": None} | sizes | run_info


@pytest.mark.parametrize(
    ("accuracy", "run_info", "verdict", "because"),
    [
        (lambda state, parameters: state / 20, {}, SUPPORTED, "State size predicts accuracy better"),
        (lambda state, parameters: parameters / 20, {}, NOT_SUPPORTED, "Parameter count predicts accuracy better"),
        (lambda state, parameters: 0.3, {}, NOT_ENOUGH, "Neither"),
        (lambda state, parameters: state / 20, {"models": ("LSTM",)}, NOT_ENOUGH, "several architectures"),
        (lambda state, parameters: state / 20, {"ended": None}, NOT_ENOUGH, "several architectures"),
    ],
    ids=["state", "parameters", "neither", "one architecture", "not ended"],
)
def test_the_fourth_insight_is_what_predicts_accuracy(
    accuracy, run_info, verdict, because, make_run, make_curve, tmp_path
):
    for index, run in enumerate(sizes(make_curve, accuracy, **run_info)):
        make_run(tmp_path / f"run{index}", **run)
    finding = insights.large_state(study.load(tmp_path))
    assert (finding.number, finding.verdict) == (4, verdict) and because in finding.because
