import json
import math

import pandas as pd
import pytest

from gpicl_flax.analysis.data import one_run, runs
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder


def row_of(folder):
    table = runs.read_all([folder]).table
    return table.iloc[0]


def append(folder, *lines):
    folder.metrics.write_text(folder.metrics.read_text() + "".join(lines))


def test_a_whole_run_has_no_gaps(make_run, tmp_path):
    run = one_run.read(make_run(tmp_path / "run"))
    assert run.gaps == [] and run.ended == "DONE" and run.run_id == "run"
    assert run.metrics.index.tolist() == list(range(10, 101, 10))
    assert run.metrics["loss_ema"].iloc[[0, -1]].tolist() == [2.25, 1.5]
    assert list(run.diagnostics) == [20, 40, 60, 80, 100]
    assert [evaluation["step"] for evaluation in run.evaluations] == [100]


def test_a_half_written_last_line_is_not_there_yet(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    append(folder, '{"step": 110, "loss')
    run = one_run.read(folder)
    assert run.gaps == [] and run.metrics.index[-1] == 100


def test_damaged_lines_are_passed_over_and_named(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    append(folder, "garbage\n", "[1]\n", '{"loss": 1}\n', '{"step": "x"}\n', '{"step": 110, "loss_ema": 1.0}\n')
    run = one_run.read(folder)
    assert run.gaps == ["4 damaged lines in metrics.jsonl"]
    assert run.metrics.index[-1] == 110 and math.isnan(run.metrics["loss"].iloc[-1])


def test_of_repeated_steps_the_last_count_and_later_rows_of_an_earlier_life_do_not(make_run, make_row, tmp_path):
    folder = make_run(tmp_path / "run", left_at=60)
    # It was resumed after step 40, and has come to step 70 since, on its plateau until then.
    append(folder, *(json.dumps(make_row(step, 70)) + "\n" for step in (50, 60, 70)))
    run = one_run.read(folder)
    assert run.metrics.index.tolist() == list(range(10, 71, 10))
    assert list(run.diagnostics) == [20, 40, 60]
    assert row_of(folder)["plateau_steps"] == 70


def test_rows_with_nan_break_nothing(make_run, tmp_path):
    folder = make_run(tmp_path / "run", left_at=None, ended="DIVERGED")
    append(folder, '{"step": 110, "loss": NaN, "loss_ema": NaN, "diagnostics": {"unseen_loss": NaN}}\n')
    append(folder, '{"step": 120, "loss": null, "loss_ema": "what", "accuracy": [1]}\n')
    row = row_of(folder)
    assert row["ended"] == "DIVERGED" and row["last_step"] == 120
    assert row["plateau_steps"] == 120 and not row["plateau_left"]
    assert row["lowest_loss_ema"] == 2.25
    assert math.isnan(row["last_loss_ema"])


@pytest.mark.parametrize("text", ["", "{", "[]", None])
def test_a_run_without_facts_has_a_row_of_what_is_known(make_run, tmp_path, text):
    folder = make_run(tmp_path / "run")
    folder.run_info.unlink() if text is None else folder.run_info.write_text(text)
    row = row_of(folder)
    assert row["gaps"] == "run.json is missing or damaged"
    assert row["last_step"] == 100 and row["evaluated_at"] == 100
    assert math.isnan(row["plateau_steps"]) and row.isna()["plateau_left"] and row.isna()["num_classes"]


def test_damaged_evaluations_are_named(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    folder.evaluation(100).write_text('{"step": 100')
    folder.evaluation(90).write_text('{"step": 90, "curves": [{"accuracy": []}]}')
    folder.evaluation(100, "abc").write_text("of other settings")
    row = row_of(folder)
    assert row["gaps"] == "step_00000090.json is damaged; step_00000100.json is damaged; no evaluation"
    assert math.isnan(row["evaluated_at"])


def test_a_run_that_has_just_begun(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text("")
    row = row_of(folder)
    assert row["gaps"] == "run.json is missing or damaged; no metrics; no evaluation"
    assert row["last_step"] == 0 and row["ended"] is None


def test_a_run_of_no_steps_has_no_plateau(make_run, tmp_path):
    folder = make_run(tmp_path / "run", steps=0, diagnostics_period=None, model="OnlineSGD")
    row = row_of(folder)
    assert row["gaps"] == "" and math.isnan(row["plateau_steps"]) and math.isnan(row["lowest_loss_ema"])
    assert math.isnan(row["last_loss_ema"])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        runs.load(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        runs.load(tmp_path / "none")


@pytest.mark.parametrize(
    "rows",
    [
        {1: {"loss": 1.5, "a": 1, "b": True}, 2: {"loss": 2, "a": 2, "b": False}},
        {1: {"a": 1}, 5: {"b": 2.5}},
        {1: {"a": None, "b": "x", "loss": float("nan")}, 2: {"a": 1, "b": 3, "loss": [1]}},
        {3: {"a": None, "b": True}, 4: {"a": None}},
        {3: {"loss_ema": 2**70}},
        {1: {}},
    ],
)
def test_metrics_are_those_of_a_table_made_row_by_row(rows):
    expected = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=one_run._columns(rows))
    expected = expected.apply(pd.to_numeric, errors="coerce").rename_axis("step")
    pd.testing.assert_frame_equal(one_run._metrics(rows), expected, check_exact=True)


def test_metrics_of_no_rows_are_numbers():
    table = one_run._metrics({})
    assert table.empty and table.index.dtype == int and list(map(str, table.dtypes)) == ["float64"] * 2
