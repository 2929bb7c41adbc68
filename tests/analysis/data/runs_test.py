import json
import math

import pytest

from gpicl_flax.analysis.data import evaluations, groups, runs, study
from gpicl_flax.analysis.figures import plateau_lengths
from gpicl_flax.analysis.report import run_summary, tables
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder, write_json


def test_the_table_has_a_row_a_run_in_the_order_of_their_names(make_run, tmp_path):
    make_run(tmp_path / "b", labels={"intervention": "matched", "model": "small"}, num_tasks=64, seed=1)
    make_run(tmp_path / "a", ended=None, left_at=None)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "runs.csv").write_text("")
    (tmp_path / "notes.txt").write_text("")
    table = runs.load(tmp_path)
    assert table["run_id"].tolist() == ["a", "b"]
    assert table["ended"].isna().tolist() == [True, False] and table["ended"][1] == "DONE"
    assert table["num_tasks"].tolist() == [math.inf, 64]
    assert table["label_model"].tolist()[1] == "small" and table["label_model"].isna().tolist() == [True, False]
    assert table["seed"].tolist() == [0, 1] and table["base_dataset"].tolist() == ["digits", "digits"]


def test_a_run_folder_is_a_table_of_one_run(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    assert runs.load(folder.path)["run_id"].tolist() == ["run"]


def test_plateaus_are_observed_or_censored_by_both_rules(make_run, tmp_path):
    make_run(tmp_path / "both", left_at=50, unseen_left_at=80)
    make_run(tmp_path / "memorised", left_at=30, unseen_left_at=None)
    make_run(tmp_path / "neither", left_at=None, steps=70)
    make_run(tmp_path / "silent", left_at=None, diagnostics_period=None)
    table = runs.load(tmp_path).set_index("run_id")
    assert table["plateau_steps"].to_dict() == {"both": 50, "memorised": 30, "neither": 70, "silent": 100}
    assert table["plateau_left"].tolist() == [True, True, False, False]
    assert table["unseen_plateau_steps"].iloc[:3].tolist() == [80, 100, 60]
    assert math.isnan(table["unseen_plateau_steps"]["silent"])
    assert table["unseen_plateau_left"].isna().tolist() == [False, False, False, True]
    assert table["unseen_plateau_left"].iloc[:3].tolist() == [True, False, False]


def test_a_run_that_stopped_early_says_why_and_its_plateau_is_censored_there(make_run, tmp_path):
    for name, left_at in (("plateau", None), ("converged", 50)):
        folder = make_run(tmp_path / name, left_at=left_at, unseen_left_at=None, steps=80)
        *rows, last = json_lines.read(folder.metrics)
        rows = [row | {"phase": "Plateau", "plateau_left_at": None} for row in rows] + [last | {"stopped_early": name}]
        folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        write_json(folder.run_info, folder.read_run_info() | {"steps": 500})
    make_run(tmp_path / "whole")
    table = runs.load(tmp_path).set_index("run_id")
    assert table["stopped_early"].iloc[:2].to_dict() == {"converged": "converged", "plateau": "plateau"}
    assert table["stopped_early"].isna()["whole"]
    assert table["plateau_steps"].to_dict() == {"converged": 50, "plateau": 80, "whole": 50}
    assert table["plateau_left"].tolist() == [True, False, True]
    assert table["unseen_plateau_steps"]["plateau"] == 80 and not table["unseen_plateau_left"]["plateau"]
    assert (table["gaps"] == "").all() and table["ended"].tolist() == ["DONE"] * 3
    text = run_summary.plateau_sentence(RunFolder(tmp_path / "plateau"))
    assert text.endswith("on unseen tasks not in 80. Stopped early at step 80 of 500 (plateau).")


def test_a_run_that_its_sweep_ended_is_counted_beside_those_that_left(make_run, tmp_path):
    for seed, left_at in enumerate((50, None, None)):
        make_run(tmp_path / str(seed), left_at=left_at, seed=seed)
    folder = RunFolder(tmp_path / "2")
    *rows, last = json_lines.read(folder.metrics)
    last |= {"stopped_early": "plateau", "leave_probability": 0.0625}
    folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, last]))
    assert run_summary.plateau_sentence(folder).endswith("(plateau: by runs like it, 6.2% would still leave it).")
    found = study.load(tmp_path)
    by_training_loss = list(tables.plateaus(found))[-1].numbers
    assert by_training_loss["left"].tolist() == ["1 of 3, 1 stopped early"]
    assert plateau_lengths.numbers(found, groups.BY_TRAINING_LOSS)["ended_early"].tolist() == [1]


def test_the_last_evaluation_is_in_columns_by_base_dataset(make_run, make_curve, tmp_path):
    curves = [make_curve("seen"), make_curve("unseen", last=0.6), make_curve("unseen", "other", last=0.3)]
    make_run(tmp_path / "run", evaluations={50: [make_curve("unseen", last=0.2)], 100: curves})
    row = runs.load(tmp_path).iloc[0]
    assert row["evaluated_at"] == 100
    assert row["unseen_last[digits]"] == 0.6 and row["unseen_last[other]"] == 0.3 and row["seen_last[digits]"] == 0.7
    assert row["unseen_last_low[digits]"] == pytest.approx(0.55)
    assert row["unseen_gain[other]"] == pytest.approx(0.2)
    assert runs.of_its_own_dataset(row, "unseen_gain") == pytest.approx(0.5)
    table = runs.read_all(runs.find(tmp_path)).evaluations
    assert table["step"].tolist() == [50, 100, 100, 100] and table["last"].tolist() == [0.2, 0.7, 0.6, 0.3]


def test_the_interval_of_a_gain_is_newcombes():
    # Newcombe (1998), example (a): 56/70 against 48/80, by the method without continuity correction: 0.0524 to 0.3339.
    curve = {
        "accuracy": [48 / 80, 56 / 70],
        "accuracy_low": [0.4904, 0.6922],
        "accuracy_high": [0.7003, 0.8771],
    }
    numbers = evaluations.numbers(curve)
    assert numbers["gain"] == pytest.approx(0.2)
    assert numbers["gain_low"] == pytest.approx(0.0524, abs=1e-3)
    assert numbers["gain_high"] == pytest.approx(0.3339, abs=1e-3)


def test_settings_are_those_that_the_run_used(make_run, tmp_path):
    folder = make_run(tmp_path / "a", config="Run.optimizer = @slow/adam()\nslow/adam.eps = 1e-16\n", model="LSTM")
    folder.operative_config.write_text(
        "Run.optimizer = @slow/adam()\nslow/adam.eps = 1e-16\nLSTM.hidden_size = 256\n"
        "TaskDistribution.input_shape = (2048,)\n"
    )
    make_run(tmp_path / "b", settings={"Run.optimizer": "@adamw()", "adamw.weight_decay": 0.1})
    table = runs.load(tmp_path)
    assert table["optimizer"].tolist() == ["adam", "adamw"] and table["eps"][0] == 1e-16
    assert table["width"][0] == 256 and math.isnan(table["width"][1]) and table["weight_decay"][1] == 0.1
    assert table["inputs"][0] == "frozen features" and table["inputs"].isna()[1]
    assert "binding_LSTM.hidden_size" not in table  # a default is no binding


def test_losses_are_thinned_to_the_same_steps_however_far_a_run_has_come(make_run, tmp_path):
    make_run(tmp_path / "a", steps=8000, left_at=4000)
    whole = make_run(tmp_path / "b", steps=8000, left_at=4000)
    whole.metrics.write_text("".join(whole.metrics.read_text().splitlines(keepends=True)[:300]))
    losses = runs.read_all(runs.find(tmp_path)).losses
    a, b = (losses[losses["run_id"] == name]["step"].tolist() for name in "ab")
    assert a == list(range(20, 8001, 20)) and b == a[:150]
    assert losses[losses["loss_ema"] < 2]["step"].min() == 4000
