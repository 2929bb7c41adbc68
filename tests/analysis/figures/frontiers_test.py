"""What a sweep chose, and the frontiers of what it then reported, from run folders."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from gpicl_flax.analysis.data import configurations, frontiers, selections, study
from gpicl_flax.analysis.figures import frontiers as figure
from gpicl_flax.analysis.report import insights, report
from gpicl_flax.records.run_folder import DIVERGED, DONE

RATES = [1e-3, 3e-3, 1e-2]
MODELS = {"LSTM": [(16, 5_000), (64, 50_000)], "Transformer": [(400, 2_200_000), (1600, 2_300_000)]}


@pytest.fixture
def make(make_run, make_curve, tmp_path):
    """Writes a selection over RATES: trials with scores by a function of (model, state, rate), and reported runs."""

    def write(score, metric="accuracy", seeds=(0, 1), reported=True, ended=lambda *_: DONE, rates=RATES, flops=1000):
        for model, sizes in MODELS.items():
            for state, parameters in sizes:
                name = f"{model}{state}"
                shared = {
                    "model": model, "state_size_paper": state, "state_size_exact": 2 * state, "parameters": parameters,
                    "diagnostics_period": None, "step_flops": flops * parameters,
                }  # fmt: skip

                def run(stage, seed, rate, name=name, model=model, state=state, shared=shared):
                    last = score(model, state, rate)
                    curves = [make_curve("seen", last=last), make_curve("unseen", last=last, loss=1 - last)]
                    selection = {"stage": stage, "configuration": name, "metric": metric}
                    make_run(
                        tmp_path / f"{stage}_{name}_{rate}_{seed}",
                        seed=seed,
                        selection=selection | {"values": {"adam.learning_rate": repr(rate)}},
                        settings={"adam.learning_rate": rate, "Run.selection": repr(selection)},
                        evaluations={100: curves},
                        ended=ended(stage, model, state, rate),
                        left_at=50 if last > 0.3 else None,
                        **shared,
                    )

                for rate in rates:
                    for seed in (1000, 1001):
                        run("select", seed, rate)
                if reported:
                    best = max(rates, key=lambda rate: score(model, state, rate))
                    for seed in seeds:
                        run("report", seed, best)
        return tmp_path

    return write


def by_rate(model, state, rate):
    """Best at 3e-3; models with other sizes differ, and a wide window for Transformers."""
    width = 0.1 if model == "LSTM" else 0.01
    return 0.4 + 0.02 * math.log2(state) - width * abs(math.log(rate / 3e-3))


def test_trials_are_no_results(make):
    found = study.load(make(by_rate))
    assert len(found.table) == 8 and len(found.trials) == 24
    for name in ("evaluations", "curves", "losses"):
        assert set(getattr(found, name)["run_id"]) <= set(found.table["run_id"])
    # Chosen rates make no experiments of their own.
    assert set(configurations.table(found)["condition"]) == {""}


def test_choices_say_what_was_chosen_what_works_as_well_and_edges(make):
    chosen = selections.choices(study.load(make(by_rate)).trials).set_index("configuration")
    assert (chosen["value"] == 3e-3).all() and (chosen["edge"] == "").all()
    assert chosen.loc["LSTM16", "working"] == 1 and chosen.loc["LSTM16", "window_low"] == 3e-3
    assert chosen.loc["Transformer400", "working"] == 3
    assert tuple(chosen.loc["Transformer400", ["window_low", "window_high"]]) == (1e-3, 1e-2)
    assert chosen.loc["LSTM64", "score"] == pytest.approx(by_rate("LSTM", 64, 3e-3))


@pytest.mark.parametrize(("rates", "edge"), [([3e-3, 1e-2], "lowest"), ([1e-3, 3e-3], "highest")])
def test_the_best_at_the_edge_is_not_called_tuned(make, rates, edge):
    found = study.load(make(by_rate, rates=rates))
    assert set(selections.choices(found.trials)["edge"]) == {edge}
    assert "Of these, 4 cannot be called tuned" in selections.sentence(found.table, found.trials)
    assert "cannot be called tuned" in figure.draw(found).caption


def test_the_rule_is_that_of_the_sweep_also_where_runs_diverged(make):
    def ended(stage, model, state, rate):
        return DIVERGED if stage == "select" and rate == 3e-3 and model == "LSTM" else DONE

    chosen = selections.choices(study.load(make(by_rate, ended=ended, reported=False)).table)
    chosen = chosen.set_index("configuration")
    assert chosen.loc["LSTM16", "value"] == 1e-3 and chosen.loc["Transformer400", "value"] == 3e-3


def test_nothing_is_chosen_before_all_trials_have_ended(make):
    def ended(stage, model, state, rate):
        return None if (stage, state, rate) == ("select", 16, 1e-2) else DONE

    chosen = selections.choices(study.load(make(by_rate, ended=ended)).trials).set_index("configuration")
    assert pd.isna(chosen.loc["LSTM16", "values"]) and pd.notna(chosen.loc["LSTM64", "values"])


def test_losses_are_chosen_by_as_well(make):
    chosen = selections.choices(study.load(make(by_rate, metric="loss")).trials)
    assert (chosen["value"] == 3e-3).all() and (chosen["score"] < 0).all()


def test_runs_with_a_former_choice_are_left_out(make, make_run):
    folder = make(by_rate)
    selection = {
        "stage": "report",
        "configuration": "LSTM16",
        "metric": "accuracy",
        "values": {"adam.learning_rate": "0.1"},
    }
    make_run(folder / "old", model="LSTM", selection=selection, diagnostics_period=None)
    assert "old" not in set(study.load(folder).table["run_id"])


def test_while_nothing_is_reported_the_report_says_that_all_is_validation(make):
    text = report._overview(study.load(make(by_rate, reported=False)))
    assert "These are the runs by which settings are chosen: what they are tested on is validation." in text


def test_a_frontier_has_a_row_for_each_configuration(make):
    table = frontiers.table(study.load(make(by_rate)))
    assert len(table) == 4 and (table["seeds"] == 2).all() and table["best_parameters"].all()
    lstm = table[table["architecture"] == "LSTM"].set_index("state_size_paper")
    assert lstm.loc[16, "train_flops"] == 1000 * 5_000 * 100
    assert lstm.loc[16, "train_examples"] == 8 * 5 * 100
    assert lstm.loc[64, "accuracy"] == pytest.approx(by_rate("LSTM", 64, 3e-3))
    assert (table["on_plateau"] == 0).all()


def test_validation_and_not_the_test_chooses_what_a_frontier_shows(make, make_run, make_curve):
    folder = make(by_rate)
    # A configuration of the same size, worse on validation, and better in the test.
    for stage, seed, last in (("select", 1000, 0.2), ("report", 0, 0.95)):
        selection = {"stage": stage, "configuration": "o", "metric": "accuracy"}
        make_run(
            folder / f"{stage}_other", model="LSTM", state_size_paper=64, state_size_exact=999, parameters=50_001,
            selection=selection | {"values": {"adam.learning_rate": "0.01"}}, settings={"adam.learning_rate": 0.01},
            evaluations={100: [make_curve("unseen", last=last)]}, diagnostics_period=None, seed=seed,
        )  # fmt: skip
    table = frontiers.table(study.load(folder))
    same = table[(table["architecture"] == "LSTM") & (table["state_size_paper"] == 64)].sort_values("parameters")
    assert same["best_state_size_paper"].tolist() == [True, False] and same["best_parameters"].all()
    assert same["accuracy"].iloc[1] == pytest.approx(0.95)


def test_the_figure_shows_frontiers_windows_and_plateaus(make):
    chart = figure.draw(study.load(make(by_rate)))
    labels = [axes.get_xlabel() for axes in chart.figure.axes if axes.axison]
    assert [label.split(" (")[0].split(",")[0] for label in labels] == [
        "state size", "parameter count", "flops of training", "state size", "state size",
    ]  # fmt: skip
    assert "Equal for all, and so not drawn: examples of training." in chart.caption
    assert "LSTM: one value (1 of 3 candidates); Transformer: a factor of 10 (3 of 3 candidates)" in chart.caption
    assert "Tuned: adam.learning_rate was chosen for each of 4 configurations, among 3 candidates" in chart.caption
    assert len(chart.numbers) == 4


def test_runs_without_a_selection_have_no_frontier_and_are_said_not_to_be_tuned(make_run, tmp_path):
    make_run(tmp_path / "a")
    found = study.load(tmp_path)
    assert figure.draw(found).figure is None and "sweep.select" in figure.draw(found).caption
    assert selections.sentence(found.table, found.trials).startswith("No setting was tuned")


def test_the_verdict_on_state_and_parameters_says_whether_it_was_tuned(make):
    found = study.load(make(by_rate))
    assert "Tuned: adam.learning_rate was chosen" in insights.large_state(found).because


def test_without_the_runs_that_chose_it_is_said_that_they_are_missing(make):
    folder = make(by_rate)
    for trial in folder.glob("select_*"):
        shutil.rmtree(trial)
    found = study.load(folder)
    assert "chosen by other runs, which are not here" in selections.sentence(found.table, found.trials)
    assert len(frontiers.table(found)) == 4


def test_tables_keep_what_was_chosen(make, tmp_path):
    from gpicl_flax.analysis.data import write_tables

    folder = make(by_rate)
    tables = write_tables.write(folder, tmp_path.parent / f"{tmp_path.name}_tables")
    one, other = (frontiers.table(study.load(place)) for place in (folder, tables))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)
    assert json.loads(other["chosen"].iloc[0]) == {"adam.learning_rate": "0.003"}
    assert np.isfinite(other["train_flops"]).all()
