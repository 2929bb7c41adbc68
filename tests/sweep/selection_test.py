"""Selection: stage one chooses, on seeds, tasks and images of its own, what stage two trains with."""

import json
import math
import shutil

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.records import selection_rule
from gpicl_flax.records.run_folder import DIVERGED, DONE, write_json
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import cost, folders, listing, outcomes, runner, stacking, stages, subset
from gpicl_flax.training.cost import chips

BINDINGS = ["Run.model = @LSTM()", "LSTM.hidden_size = 4", "Run.optimizer = @adam()", "Training.steps = 20"]
GRIDS = "sweep.grids = [{'LSTM.hidden_size': [4, 8], 'Run.seed': [0, 1, 2]}]"
SELECT = "sweep.select = {'adam.learning_rate': [1e-3, 1e-2]}"


@pytest.fixture
def config(small_bindings):
    def make(*more, grids=GRIDS, select=SELECT):
        return parse([], [*small_bindings, *BINDINGS, grids, select, *more])

    return make


def of(points, stage):
    return [point for point in points if point.stage == stage]


def scores_of(values):
    """Outcomes by the learning rate and hidden size of trials."""

    def found(points, metric):
        keys = [(p.overrides["LSTM.hidden_size"], p.overrides["adam.learning_rate"]) for p in points]
        return [values.get(key) for key in keys]

    return found


def scores_of_labels(values):
    """Outcomes by the label of trials."""
    return lambda points, metric: [values[point.overrides["Run.labels"]["schedule"]] for point in points]


def end(point, workdir, accuracies, marker=DONE, base_dataset="digits"):
    """Makes the folder of a point that has ended."""
    folder = folders.find([point], workdir)[0]
    write_json(folder.run_info, {"base_dataset": {"name": base_dataset}, "steps": 20})
    curve = {"base_dataset": base_dataset, "tasks": "unseen", "num_sequences": 20, "fingerprint": ""}
    accuracies = {name: accuracies for name in ("accuracy", "accuracy_low", "accuracy_high")}
    write_json(folder.evaluation(20), {"step": 20, "curves": [curve | accuracies | {"loss": [2.0, 1.0]}]})
    folder.mark(marker)


def test_the_points_of_stage_one_are_every_candidate_on_seeds_tasks_and_images_of_their_own(config):
    points = stages.points(config("sweep.select_seeds = 3"))
    trials, reported = of(points, "select"), of(points, "report")
    assert (len(trials), len(reported)) == (2 * 2 * 3, 6) and points == [*trials, *reported]
    for trial, run in zip(trials, listing.resolve_all(trials), strict=True):
        assert run.seed in (1000, 1001, 1002)
        assert run.tasks.validation_share == 0.1
        assert run.test_names == ("digits",)
        assert run.training.steps == 20
        assert dict(run.selection)["stage"] == "select"
        assert trial.run_id.startswith("select_")
        assert f"_learning_rate={run.selection['values']['adam.learning_rate']}_" in trial.run_id
        assert trial.digest in trial.run_id
    assert len({point.digest for point in trials}) == len(trials)
    assert all(point.is_pending and "learning_rate=selected_seed=" in point.run_id for point in reported)


def test_stage_two_is_the_grid_with_the_best_candidate_of_each_configuration(config):
    found = scores_of({(4, 1e-3): 0.5, (4, 1e-2): 0.4, (8, 1e-3): 0.2, (8, 1e-2): 0.9})
    reported = of(stages.points(config(), found), "report")
    chosen = [(p.overrides["LSTM.hidden_size"], p.overrides["adam.learning_rate"]) for p in reported]
    assert chosen == [(4, 1e-3)] * 3 + [(8, 1e-2)] * 3
    assert [run.seed for run in listing.resolve_all(reported)] == [0, 1, 2] * 2
    assert not any(point.is_pending for point in reported)
    # The same run by hand has the same folder.
    by_hand = stages.points(
        config(
            "adam.learning_rate = 1e-2", grids="sweep.grids = [{'LSTM.hidden_size': [8], 'Run.seed': [0]}]", select=""
        )
    )
    assert by_hand[0].digest == reported[3].digest


@pytest.mark.parametrize(
    ("values", "first", "pending"),
    [
        ({(4, 1e-3): 0.5}, None, 6),  # the other candidate has not ended
        ({(4, 1e-3): -math.inf, (4, 1e-2): 0.1}, 1e-2, 3),  # one diverged
        ({(4, 1e-3): -math.inf, (4, 1e-2): -math.inf}, None, 6),  # all diverged
        ({(4, 1e-3): math.nan, (4, 1e-2): 0.1}, None, 6),  # a folder is damaged
        ({(4, 1e-3): 0.3, (4, 1e-2): 0.3}, 1e-3, 3),  # of equal ones the first
    ],
)
def test_a_configuration_is_pending_until_its_candidates_are_known(config, values, first, pending):
    reported = of(stages.points(config(), scores_of(values)), "report")
    assert sum(point.is_pending for point in reported) == pending
    assert (None if reported[0].is_pending else reported[0].overrides["adam.learning_rate"]) == first


def test_the_best_candidate_has_the_highest_mean_by_a_plain_count():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.normal(size=(rng.integers(2, 6), rng.integers(1, 5)))
        scores[rng.random(scores.shape) < 0.1] = -np.inf
        means = scores.mean(axis=1)
        expected = None if np.isinf(means).all() else int(means.argmax())
        assert selection_rule.best(scores.tolist()) == expected


def test_scores_are_those_of_unseen_tasks_of_the_own_dataset():
    curves = [
        {"tasks": tasks, "base_dataset": name, "accuracy": [0.1, last], "loss": [2.0, 3.0 - last]}
        for tasks, name, last in (("seen", "a", 0.9), ("unseen", "b", 0.8), ("unseen", "a", 0.7))
    ]
    assert selection_rule.score({"curves": curves}, "a", "accuracy") == 0.7
    assert selection_rule.score({"curves": curves}, "a", "loss") == pytest.approx(-(2.0 + 2.3) / 2)


def test_outcomes_are_read_from_folders(config, tmp_path):
    trials = of(stages.points(config()), "select")
    read = outcomes.in_folder(tmp_path)
    assert read(trials, "accuracy") == [None] * 8
    end(trials[0], tmp_path, [0.1, 0.6])
    end(trials[1], tmp_path, [0.1, 0.6], DIVERGED)
    end(trials[2], tmp_path, [0.1, 0.6])
    next(folders.find([trials[2]], tmp_path)[0].evaluations.iterdir()).write_text("{")
    found = read(trials, "accuracy")
    assert found[:2] == [0.6, -math.inf] and math.isnan(found[2]) and found[3:] == [None] * 5
    assert read(trials, "loss")[0] == -1.5


def test_candidates_may_be_labelled_and_zipped_and_drawn(config):
    labelled = "'schedule': {'flat': {}, 'low': {'adam.learning_rate': 1e-4}}"
    select = f"sweep.select = {{{labelled}, ('adam.b1', 'adam.b2'): [(0.9, 0.99), (0.8, 0.9)]}}"
    points = stages.points(config(select=select))
    trials = of(points, "select")
    assert len(trials) == 2 * 4 * 2
    runs = listing.resolve_all(trials)
    assert {run.labels["schedule"] for run in runs} == {"flat", "low"}
    assert runs[0].selection["values"] == {"schedule": "flat", "adam.b1": "0.9", "adam.b2": "0.99"}
    # None is chosen yet, although the first label sets nothing.
    reported = of(points, "report")
    assert len(reported) == 6 and all(point.is_pending and "schedule=selected" in point.run_id for point in reported)
    assert reported[0].overrides["adam.learning_rate"] == "selected"
    assert reported[0].overrides["Run.labels"] == {"schedule": "selected"}
    found = scores_of_labels({"flat": 0.2, "low": 0.4})
    chosen = of(stages.points(config(select=f"sweep.select = {{{labelled}}}"), found), "report")
    assert {point.overrides["adam.learning_rate"] for point in chosen} == {1e-4}
    many = "sweep.select = {'adam.learning_rate': [1e-4, 1e-3, 1e-2], 'adam.b1': [0.8, 0.9, 0.95]}"
    drawn = of(stages.points(config("sweep.select_budget = 4", select=many)), "select")
    assert len(drawn) == 2 * 4 * 2
    chosen = [tuple(p.overrides[key] for key in ("LSTM.hidden_size", "adam.learning_rate", "adam.b1")) for p in drawn]
    by_size = [{(rate, b1) for own, rate, b1 in chosen if own == size} for size in (4, 8)]
    assert by_size[0] == by_size[1] and len(by_size[0]) == 4


def test_stage_one_can_train_for_a_share_of_the_steps(config):
    trials = of(stages.points(config("sweep.select_share = 0.26", "Training.checkpoint_period = 10")), "select")
    assert {run.training.steps for run in listing.resolve_all(trials)} == {10}  # whole dispatches


def test_points_without_steps_are_in_stage_two_as_they_are(config):
    grids = "sweep.grids = [{'Training.steps': [0, 20], 'Run.seed': [0]}]"
    plain, chosen = (stages.points(config(grids=grids, select=select)) for select in ("", SELECT))
    assert [point.stage for point in chosen] == ["select"] * 4 + ["", "report"]
    assert chosen[4].digest == plain[0].digest


def test_families_without_a_base_dataset_are_selected_by_their_loss(config):
    more = ["Run.tasks = @NoisyLinearRegression()", "NoisyLinearRegression.sequence_length = 6"]
    grids = "sweep.grids = [{'Run.seed': [0]}]"
    plain = [line for line in BINDINGS if "hidden" not in line]
    points = stages.points(parse([], [*plain, *more, grids, SELECT, "sweep.select_metric = 'loss'"]))
    runs = listing.resolve_all(points)
    assert runs[0].tasks.unseen_task_ids(1) != runs[-1].tasks.unseen_task_ids(1)
    with pytest.raises(UsageError, match="sweep.select_metric is 'accuracy', but the targets of NoisyLinear"):
        listing.resolve_all(stages.points(parse([], [*plain, *more, grids, SELECT])))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["sweep.select_metric = 'f1'"], "sweep.select_metric must be one of accuracy, loss, not 'f1'"),
        (["sweep.select_seeds = 0"], "sweep.select_seeds must be .*, not 0"),
        (["sweep.select_share = 1.5"], "sweep.select_share must be .*, not 1.5"),
        (["sweep.select_budget = 1"], "sweep.select_budget must be .*, not 1"),
        (["sweep.select_validation_share = 0"], "sweep.select_validation_share must be above 0"),
        (["sweep.select = {'adam.learning_rate': [1e-3]}"], "sweep.select has one candidate"),
        (
            [
                "sweep.grids = [{'adam.learning_rate': [0.1], 'Run.seed': [0]}]",
                "sweep.select = {'schedule': {'flat': {}, 'low': {'adam.learning_rate': 1e-4}}}",
            ],
            "adam.learning_rate is also set by sweep.grids",
        ),
        (["sweep.select = []"], "sweep.select must be {binding: values}"),
        (["sweep.select = {'LSTM.hidden_size': [4, 8]}"], "LSTM.hidden_size is also set by sweep.grids"),
        (["sweep.grids = [{'Run.seed': [1001]}]"], "the seeds 1000 to 1001 are those by which settings are chosen"),
        (["TaskDistribution.validation_share = 0.5"], "set sweep.select_validation_share instead"),
        (["sweep.fixed = {'adam.learning_rate': 1.0}"], "sweep.fixed would undo what sweep.select chooses"),
    ],
)  # fmt: skip
def test_wrong_settings_are_usage_errors(config, more, words):
    with pytest.raises(UsageError, match=words):
        stages.points(config(*more))


def test_a_setting_without_selection_is_a_usage_error(config):
    with pytest.raises(UsageError, match="sweep.select_seeds has no effect without sweep.select"):
        stages.points(config("sweep.select_seeds = 3", select=""))


def test_shares_keep_configurations_whole(config):
    grids = "sweep.grids = [{'LSTM.hidden_size': [4, 8, 16], 'Run.seed': [0, 1]}]"
    points = stages.points(config(grids=grids))
    runs = listing.resolve_all(points)
    for count in (1, 2, 3, 5):
        shares = [subset.shard(points, runs, number, count) for number in range(1, count + 1)]
        assert sorted(index for share in shares for index in share) == list(range(len(points)))
        units = [{points[index].unit for index in share} for share in shares]
        assert sum(map(len, units)) == 3 and all(units[:3])


def test_a_pattern_brings_the_trials_that_its_points_depend_on(config):
    points = stages.points(config())
    chosen = subset.only(points, "hidden_size=8*seed=1_")
    # The seeds of the trials are not 1, but a point of stage two has it.
    chosen = subset.only(points, "hidden_size=8*seed=1")
    assert {point.configuration for point in of(chosen, "select")} == {chosen[-1].configuration}
    (one,) = subset.only(points, points[0].run_id)
    assert one == points[0]


def test_candidates_that_are_numbers_train_as_one_stack(config):
    points = of(stages.points(config()), "select")
    groups = stacking.groups(points, listing.resolve_all(points))
    assert [len(group) for group in groups] == [4, 4]


def run(config, workdir, **more):
    said = []
    find = lambda: stages.points(config, outcomes.in_folder(workdir))  # noqa: E731
    with StopRequest() as stop:
        runner.run_all(find, workdir, stop, say=said.append, **more)
    return said


ONE = "sweep.grids = [{'Run.seed': [0]}]"


def test_a_sweep_chooses_without_the_test_split_and_reports_in_one_call(config, tmp_path, monkeypatch):
    from gpicl_flax.tasks.datasets import sources

    asked, load = [], sources.load
    monkeypatch.setattr(sources, "load", lambda name, **how: asked.append(how["with_test"]) or load(name, **how))
    whole = config("sweep.select_seeds = 1", grids=ONE)
    said = run(whole, tmp_path)
    assert said[0] == "2 points: 2 to choose settings:" and "1 points: 1 with what was chosen:" in said
    # Each stage has loaded the data to check them, and to train. Only the last did so with the test split.
    first_of_stage_two = asked.index(True)
    assert not any(asked[:first_of_stage_two]) and all(asked[first_of_stage_two:]) and first_of_stage_two >= 2
    points = stages.points(whole, outcomes.in_folder(tmp_path))
    infos = [folder.read_run_info() for folder in folders.find(points, tmp_path)]
    assert [info["selection"]["stage"] for info in infos] == ["select", "select", "report"]
    assert [info.get("validation_share") for info in infos] == [0.1, 0.1, None]
    assert infos[0]["base_dataset"]["train_examples"] < infos[2]["base_dataset"]["train_examples"]
    (budget, *_) = cost.budget(points, listing.resolve_all(points), chip=chips.chip("v5e"))
    assert [info["step_flops"] for info in infos] == [budget.step_flops] * 3
    scores = outcomes.in_folder(tmp_path)(points[:2], "accuracy")
    assert infos[2]["selection"]["values"] == infos[int(np.argmax(scores))]["selection"]["values"]
    # A second call finds everything done.
    assert all(line.endswith((":", "DONE")) for line in run(whole, tmp_path))


@pytest.mark.slow
def test_a_selection_that_was_interrupted_ends_with_the_same_bytes(config, tmp_path):
    whole = config("sweep.select_seeds = 1", grids=ONE)
    run(whole, tmp_path / "whole")
    # Without stage two, and without one trial.
    (reported,) = of(stages.points(whole, outcomes.in_folder(tmp_path / "whole")), "report")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / reported.run_id)
    shutil.rmtree(tmp_path / "half" / of(stages.points(whole), "select")[1].run_id)
    run(whole, tmp_path / "half")
    for name in ("metrics.jsonl", "config.gin", "eval/step_00000020.json"):
        one, other = (tmp_path / place / reported.run_id / name for place in ("whole", "half"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_candidate_may_diverge_and_a_configuration_without_any_is_said(config, tmp_path):
    select = "sweep.select = {'adam.learning_rate': [1e30, 1e-3]}"
    whole = config("sweep.select_seeds = 1", grids=ONE, select=select)
    run(whole, tmp_path / "one")
    (reported,) = of(stages.points(whole, outcomes.in_folder(tmp_path / "one")), "report")
    assert reported.overrides["adam.learning_rate"] == 1e-3
    select = "sweep.select = {'adam.learning_rate': [1e30, 1e31]}"
    with pytest.raises(GpiclError, match="1 points wait for others, which .* diverged with every candidate"):
        run(config("sweep.select_seeds = 1", grids=ONE, select=select), tmp_path / "none")


def test_what_stage_two_needs_is_checked_before_stage_one(config, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        run(config("MetaTest.base_datasets = ['digits', './nowhere.npz']", grids=ONE), tmp_path)
    assert not list(tmp_path.iterdir())


def test_status_lists_and_costs_show_both_stages(small_bindings, tmp_path, capsys):
    from gpicl_flax.cli.main import main

    arguments = ["sweep"]
    (tmp_path / "small.gin").write_text("\n".join([*small_bindings, *BINDINGS, GRIDS, SELECT]))
    arguments += ["--gin_file", str(tmp_path / "small.gin")]
    assert main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.endswith("14 points: 8 to choose settings, 6 with what was chosen\n")
    assert main([*arguments, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["stage"], row["pending"]) for row in rows] == [("select", False)] * 8 + [("report", True)] * 6
    assert main([*arguments, "--dry_run"]) == 0
    out = capsys.readouterr().out
    starts = ("to choose settings", "with what was chosen", "all")
    totals = {start: line.split() for line in out.splitlines() for start in starts if line.startswith(start)}
    assert [totals[start][-3] for start in starts] == ["8", "6", "14"]
    assert float(totals["all"][-1]) == pytest.approx(sum(float(totals[start][-1]) for start in starts[:2]), abs=0.02)
    assert main([*arguments, "--dry_run", "--json"]) == 0
    budget = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["stage"], len(row["points"])) for row in budget] == [("select", 4), ("report", 3)] * 2
    assert budget[0]["flops"] / 4 == pytest.approx(budget[1]["flops"] / 3)
    workdir = tmp_path / "runs"
    for point in of(stages.points(parse([str(tmp_path / "small.gin")])), "select"):
        end(point, workdir, [0.1, 0.2 if point.overrides["adam.learning_rate"] == 1e-2 else 0.3])
    assert main([*arguments, "--status", "--workdir", str(workdir), "--json"]) == 0
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [state["state"] for state in states] == ["done"] * 8 + ["waiting"] * 6
    assert all("learning_rate=0.001" in state["run_id"] for state in states[8:])


def test_a_single_run_refuses_what_only_sweeps_follow(small_bindings, tmp_path, refused):
    (tmp_path / "small.gin").write_text("\n".join([*small_bindings, *BINDINGS, SELECT]))
    arguments = ["train", "--gin_file", str(tmp_path / "small.gin"), "--workdir", str(tmp_path / "run")]
    refused(arguments, "describes a sweep (sweep.select); use `gpicl sweep`")


def test_a_selection_that_no_sweep_wrote_is_refused(config):
    (point,) = stages.points(config("Run.selection = {'rate': 0.1}", grids=ONE, select=""))
    with pytest.raises(UsageError, match="Run.selection is for sweeps"):
        listing.resolve_all([point])
