import json

import pandas as pd
import pytest

from gpicl_flax.analysis.data import one_run, plateau_replay
from gpicl_flax.analysis.data.plateau_replay import KeptRun
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.plateau_stop import PlateauStop

STEPS, PERIOD = 1000, 50
INFO = {"num_classes": 10, "steps": STEPS}


def a_run(name, left_at=None, began=None, grows=True, likeness=""):
    """A run whose score doubles every 60 steps before it leaves; where it does not grow, it is 0.02."""
    rows = []
    for step in range(PERIOD, STEPS + 1, PERIOD):
        left = left_at is not None and step >= left_at
        score = max(0.02, 0.6 * 2 ** (min(step - left_at, 0) / 60)) if left_at and grows else 0.02
        loss = 2.0 if left else 2.3
        diagnostics = {"unseen_loss": 2.3, "unseen_accuracy_last": 0.1, "matching_score": [[score]]}
        rows.append({"step": step, "loss_ema": loss, "diagnostics": diagnostics})
    return KeptRun(name, INFO, rows, likeness, began, None if began is None else began + 10)


def history(began=None):
    left = [a_run(f"left {at}", at, began) for at in (400, 500, 600, 800, 1000)]
    return left + [a_run(f"stayed {number}", None, began) for number in range(9)]


def test_a_run_is_ended_when_its_like_and_its_score_say_so():
    table = plateau_replay.replay([*history(), a_run("new"), a_run("surprising", 1000, grows=False)], PlateauStop())
    by_name = table.set_index("run_id")
    stopped = by_name.loc["new", "stopped_at"]
    assert 600 < stopped < STEPS and by_name.loc["new", "saved"] == STEPS - stopped
    assert by_name.loc["new", "like"] == 14 and not by_name.loc["new", "wrong"]
    assert by_name.loc["surprising", "wrong"]
    assert table["wrong"].sum() == 1 and by_name["stopped_at"].iloc[:5].isna().all()
    outcome = plateau_replay.outcome(table)
    assert (outcome.runs, outcome.wrong) == (16, 1) and outcome.low < 1 / outcome.ended < outcome.high
    assert outcome.saved == pytest.approx(table["saved"].sum() / (16 * STEPS))


def test_a_run_sees_only_like_runs_that_had_ended_before_it_began():
    seen = plateau_replay.replay([a_run("new", began=10.0), *history(0.0)], PlateauStop()).set_index("run_id")
    assert seen.loc["new", "like"] == 14 and seen.loc["new", "saved"] > 0
    beside = plateau_replay.replay([*history(0.0), a_run("new", began=5.0)], PlateauStop()).set_index("run_id")
    assert beside.loc["new", "like"] == 0 and beside["saved"].sum() == 0
    other = plateau_replay.replay([*history(), a_run("new", likeness="other")], PlateauStop()).set_index("run_id")
    assert other.loc["new", "like"] == 0


def test_left_out_one_by_one_all_see_the_others():
    table = plateau_replay.replay(history(), PlateauStop(), leave_one_out=True)
    assert (table["like"] == 13).all() and not table["wrong"].any()
    assert (table["saved"] > 0).tolist() == [False] * 5 + [True] * 9


def test_an_outcome_without_ends_has_no_interval():
    outcome = plateau_replay.outcome(plateau_replay.replay(history()[:3], PlateauStop()))
    assert (
        outcome.ended == 0
        and pd.isna(outcome.low)
        and outcome.text == "3 runs; 0.0% of their steps saved; 0 ended early"
    )


def test_runs_whose_end_is_known_are_replayed(make_run, tmp_path):
    names = ("whole", "stopped", "unfinished", "undiagnosed")
    for name in names:
        make_run(
            tmp_path / name,
            steps=80 if name == "unfinished" else 100,
            ended=None if name == "unfinished" else "DONE",
            diagnostics_period=None if name == "undiagnosed" else 20,
        )
    folder = RunFolder(tmp_path / "stopped")
    *rows, last = json_lines.read(folder.metrics)
    folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, last | {"stopped_early": "plateau"}]))
    unfinished = RunFolder(tmp_path / "unfinished")
    unfinished.run_info.write_text(json.dumps(unfinished.read_run_info() | {"steps": 500}))
    kept = plateau_replay.kept([one_run.read(RunFolder(tmp_path / name)) for name in names], PlateauStop())
    assert [run.run_id for run in kept] == ["whole"]
    assert [row["step"] for row in kept[0].rows if "diagnostics" in row] == [20, 40, 60, 80, 100]
    assert kept[0].rows[-1]["loss_ema"] == 1.5 and len(kept[0].rows) == 10
