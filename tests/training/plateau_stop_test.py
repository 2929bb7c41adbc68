"""The plateau-aware stop as a function of a saved rule and the rows of a log."""

import json

import numpy as np
import pytest

from gpicl_flax.errors import Damaged
from gpicl_flax.records import json_lines, plateau_rule
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.run_folder import RunFolder, write_atomically
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training.early_stop import EarlyStop
from gpicl_flax.training.log_writer import LogWriter
from gpicl_flax.training.run_log import RunLog

STEPS, DISPATCH, PERIOD = 400, 10, 20
ON, OFF = 2.3, 1.5
RULE = PlateauRule(0.9, 0, 12, 4, 8, score=0.5, growth=0.001, steps=(80, 200, 300), leave_probability=(1.0, 0.06, 0.05))


def train(folder, rule, score=lambda step: 0.02, losses=lambda step: ON, *, start=0, until=STEPS, early_stop=None):
    """Logs a run as the loop does; returns its last row and the record of its checkpoint."""
    if rule is not None and start == 0:
        write_atomically(folder.early_stop, rule.text)
    writer = LogWriter()
    tasks = ProjectedImages()
    log = RunLog(folder, tasks, start, (), writer, steps=STEPS, steps_per_dispatch=DISPATCH, early_stop=early_stop)
    step = start
    while step < min(log.stop_state.last_step, until):
        step += DISPATCH
        metrics = {name: np.ones(DISPATCH) for name in ("loss", "grad_norm", "param_norm")}
        metrics["loss_ema"] = np.full(DISPATCH, losses(step))
        measured: dict = {"unseen_loss": np.float32(ON), "unseen_accuracy_last": np.float32(0.1)}
        if score(step) is not None:
            measured["matching_score"] = np.array([[0.0, score(step)], [np.nan, 0.001]], np.float32)
        assert log.add(step, metrics, {"diagnostics": measured} if step % PERIOD == 0 else {}) is None
    writer.flush()
    return json_lines.read(folder.metrics)[-1], log.record()


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def ends(row):
    return row["step"], row.get("stopped_early"), row.get("leave_probability")


def test_a_run_whose_like_rarely_leave_and_whose_score_stands_ends_a_dispatch_later(folder):
    row, _ = train(folder, RULE)
    assert ends(row) == (210, "plateau", 0.06) and row["plateau"]
    assert not {"stopped_early", "leave_probability"} & json_lines.read(folder.metrics)[-2].keys()


@pytest.mark.parametrize(
    ("changes", "score", "losses"),
    [
        ({}, lambda step: 0.02 * 1.02**step / 1.02**100 if step > 100 else 0.02, lambda step: ON),  # 0.02 e^(0.02 300)
        ({}, lambda step: None, lambda step: ON),
        ({}, lambda step: 0.02, lambda step: OFF if step == 150 else ON),  # it left, and is back
        ({"score": None}, lambda step: 0.02, lambda step: ON),
        ({"score": 0.02}, lambda step: 0.02, lambda step: ON),
        ({"confidence": 0.96}, lambda step: 0.02, lambda step: ON),
        ({"from_step": 390}, lambda step: 0.02, lambda step: ON),
        ({"steps": (), "leave_probability": ()}, lambda step: 0.02, lambda step: ON),
    ],
)
def test_others_make_all_their_steps(folder, changes, score, losses):
    rule = PlateauRule(**{**json.loads(RULE.text), **changes})
    assert ends(train(folder, rule, score, losses)[0]) == (STEPS, None, None)


def test_it_waits_while_a_growth_like_that_of_its_like_would_suffice(folder):
    rule = PlateauRule(**{**json.loads(RULE.text), "growth": 0.05})  # 0.02 e^(0.05 steps) is 0.5 after 64.4 steps
    assert ends(train(folder, rule)[0]) == (350, "plateau", 0.05)


def test_it_asks_only_where_there_are_diagnostics_and_from_the_step_on(folder):
    rule = PlateauRule(**{**json.loads(RULE.text), "from_step": 230, "steps": (0,), "leave_probability": (0.01,)})
    assert ends(train(folder, rule)[0]) == (250, "plateau", 0.01)


def test_it_waits_for_enough_diagnoses(folder):
    rule = PlateauRule(**{**json.loads(RULE.text), "steps": (0,), "leave_probability": (0.01,), "growth": 0.0})
    assert ends(train(folder, rule)[0]) == (4 * PERIOD + DISPATCH, "plateau", 0.01)


def test_without_a_rule_nothing_changes(folder):
    row, record = train(folder, None)
    assert ends(row) == (STEPS, None, None)
    assert set(record["stop_state"]) == {"last_step", "why", "best", "best_at"}


def test_the_rule_of_fixed_steps_still_counts(folder):
    assert ends(train(folder, RULE, early_stop=EarlyStop(plateau_steps=100))[0]) == (110, "plateau", None)


@pytest.mark.parametrize("seed", range(3))
def test_whenever_it_is_interrupted_the_log_is_the_same_to_the_byte(folder, seed):
    noise = np.random.default_rng(seed).uniform(0.0, 0.03, STEPS + 1)
    rule = PlateauRule(**{**json.loads(RULE.text), "steps": (0, 100), "leave_probability": (1.0, 0.02)})

    def score(step):
        return float(noise[step])

    last, record = train(folder, rule, score)
    assert 100 < last["step"] < STEPS and last["stopped_early"] == "plateau"
    whole = folder.metrics.read_text()
    for start in range(0, last["step"] + 1, 30):
        parts = RunFolder(folder.path / str(start))
        train(parts, rule, score, until=start + 20)  # it had logged more than it had saved
        assert train(parts, rule, score, start=start) == (last, record)
        assert parts.metrics.read_text() == whole


def test_a_rule_is_read_as_it_was_written(folder):
    assert plateau_rule.read(folder) is None
    write_atomically(folder.early_stop, RULE.text)
    assert plateau_rule.read(folder) == RULE
    assert [RULE.probability(step) for step in (0, 79, 80, 199, 200, 350)] == [1.0, 1.0, 1.0, 1.0, 0.06, 0.05]


@pytest.mark.parametrize(
    "changes",
    [{"steps": [80, 200]}, {"steps": [80, 300, 200]}, {"confidence": 2}, {"score": "high"}, {"leave_probability": 1}],
)
def test_a_damaged_rule_is_named(folder, changes):
    write_atomically(folder.early_stop, json.dumps({**json.loads(RULE.text), **changes}))
    with pytest.raises(Damaged, match="early_stop.json is damaged .*delete it: without it the run makes all its steps"):
        train(folder, None)
