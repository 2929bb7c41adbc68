"""The rules on synthetic losses, as the log of a run meets them."""

import json
import math

import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.records import json_lines, plateau
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training.early_stop import EarlyStop
from gpicl_flax.training.log_writer import LogWriter
from gpicl_flax.training.run_log import RunLog
from gpicl_flax.training.settings import Training

STEPS, DISPATCH = 400, 10


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def log_of(folder, early_stop, start=0, classes=10, writer=None):
    tasks = ProjectedImages(num_classes=classes)
    settings = {"steps": STEPS, "steps_per_dispatch": DISPATCH, "early_stop": early_stop}
    return RunLog(folder, tasks, start, (), writer or LogWriter(), **settings)


def train(folder, early_stop, losses, unseen=None, *, start=0, until=STEPS, classes=10):
    """Logs a run whose average loss and loss on unseen tasks after a step are given by functions; returns its last row.

    As in the loop, a row is logged when the next dispatch has begun.
    """
    writer = LogWriter()
    log, step = log_of(folder, early_stop, start, classes, writer), start
    while step < min(log.stop_state.last_step, until):
        step += DISPATCH
        metrics = {name: np.ones(DISPATCH) for name in ("loss", "grad_norm", "param_norm")}
        metrics["loss_ema"] = np.full(DISPATCH, losses(step))
        diagnosed = step % 20 == 0 and unseen is not None
        measured = {"diagnostics": {"unseen_loss": unseen(step), "unseen_accuracy_last": 0.1}} if diagnosed else {}
        assert log.add(step, metrics, measured) is None
    writer.flush()
    return json_lines.read(folder.metrics)[-1]


def flat(step):
    return 2.3


def drop(step):
    """Leaves at step 100 and falls until step 200."""
    return 2.3 if step < 100 else max(1.0, 2.1 - (step - 100) / 50)


def bump(step):
    """Rises again after it has left."""
    return drop(step) if step < 150 else 2.3


def ends(row):
    return row["step"], row.get("stopped_early")


def test_a_run_that_stands_on_its_plateau_stops_a_dispatch_after_its_budget(folder):
    row = train(folder, EarlyStop(plateau_steps=100), flat)
    assert ends(row) == (110, "plateau")
    assert row["plateau_left_at"] is None and row["plateau"] and row["phase"] == "Plateau"
    assert "stopped_early" not in json_lines.read(folder.metrics)[-2]


@pytest.mark.parametrize(
    ("early_stop", "losses"),
    [
        (None, flat),
        (EarlyStop(plateau_steps=100), drop),  # leaves with the last step of its budget
        (EarlyStop(plateau_steps=300), bump),  # a second stand is none
        (EarlyStop(plateau_steps=50), lambda step: 1.0),  # no plateau at all
        (EarlyStop(converged_steps=50), flat),  # stands still, but on its plateau
        (EarlyStop(plateau_steps=390), flat),  # would make all its steps
        (EarlyStop(converged_steps=50, min_improvement=0.001), lambda step: 2.0 * 0.999 ** (step / 5)),
    ],
)
def test_others_make_all_their_steps(folder, early_stop, losses):
    assert ends(train(folder, early_stop, losses)) == (STEPS, None)


def test_a_run_that_has_converged_stops(folder):
    # drop(150) = 1.1 and drop(160) = 1.0 is the last fall.
    row = train(folder, EarlyStop(converged_steps=80), drop)
    assert ends(row) == (160 + 80 + DISPATCH, "converged") and row["plateau_left_at"] == 100 and not row["plateau"]


def test_rising_again_is_not_falling(folder):
    row = train(folder, EarlyStop(converged_steps=80), bump)
    assert ends(row) == (140 + 80 + DISPATCH, "converged")
    assert row["plateau"] and row["plateau_left_at"] == 100  # at its height again


def test_slow_falls_add_up(folder):
    """Each is under min_improvement, four of them are not."""

    def losses(step):
        return 2.0 * 0.997 ** (step / DISPATCH)

    assert ends(train(folder, EarlyStop(converged_steps=40), losses)) == (STEPS, None)
    assert ends(train(RunFolder(folder.path / "2"), EarlyStop(converged_steps=30), losses)) == (50, "converged")


def test_by_unseen_tasks_a_run_that_memorises_stands_on_its_plateau(folder):
    early_stop = EarlyStop(plateau_steps=200, converged_steps=50, judged_by="unseen")
    assert ends(train(folder, early_stop, drop, flat)) == (210, "plateau")
    # Their mean of three is under 2.2 with the measurement of step 120, and least with that of step 200.
    row = train(RunFolder(folder.path / "2"), early_stop, flat, drop)
    assert ends(row) == (260 + DISPATCH, "converged") and row["plateau_left_at"] is None


def test_an_unseen_loss_that_is_not_finite_is_none_and_no_fall(folder):
    def unseen(step):
        return math.nan if step % 40 else drop(step)

    early_stop = EarlyStop(plateau_steps=100, judged_by="unseen")
    assert ends(train(folder, early_stop, flat, unseen)) == (110, "plateau")
    rows = json_lines.read(folder.metrics)
    assert [row["diagnostics"]["unseen_loss"] for row in rows if "diagnostics" in row][0] is None
    early_stop = EarlyStop(converged_steps=100, judged_by="unseen")
    last = train(RunFolder(folder.path / "2"), early_stop, flat, unseen)
    # Of those that are finite, at 40, 80 and so on, that of step 240 is the third of 1.0.
    assert ends(last) == (240 + 100 + DISPATCH, "converged")


def test_other_numbers_of_classes_have_other_thresholds(folder):
    early_stop = EarlyStop(plateau_steps=100)

    def between(step):
        return 0.5 * (plateau.threshold(10) + plateau.threshold(20))

    assert ends(train(folder, early_stop, between)) == (110, "plateau")
    assert ends(train(RunFolder(folder.path / "2"), early_stop, between, classes=20)) == (STEPS, None)


def noisy(seed):
    steps = np.random.default_rng(seed).normal(0.012, 0.05, STEPS // DISPATCH)
    curve = np.minimum(2.3 - np.cumsum(steps), 2.31)
    return lambda step: float(curve[step // DISPATCH - 1])


@pytest.mark.parametrize("judged_by", ["training", "unseen"])
@pytest.mark.parametrize("seed", range(3))
def test_whenever_it_is_interrupted_the_log_is_the_same_to_the_byte(folder, seed, judged_by):
    early_stop = EarlyStop(plateau_steps=250, converged_steps=60, judged_by=judged_by)
    losses, unseen = noisy(seed), noisy(seed + 10)
    last = train(folder, early_stop, losses, unseen)
    whole = folder.metrics.read_text()
    for start in range(0, last["step"] + 1, 30):
        parts = RunFolder(folder.path / str(start))
        # It had logged more than it had saved.
        train(parts, early_stop, losses, unseen, until=start + 20)
        assert train(parts, early_stop, losses, unseen, start=start) == last
        assert parts.metrics.read_text() == whole


def test_the_log_and_the_rule_of_whole_logs_agree(folder):
    found = []
    for seed in range(4):
        folder_of_it = RunFolder(folder.path / str(seed))
        last = train(folder_of_it, None, noisy(seed), noisy(seed + 1))
        rows = json_lines.read(folder_of_it.metrics)
        assert last["plateau_left_at"] == plateau.plateau_exit_step(
            [r["step"] for r in rows], [r["loss_ema"] for r in rows], plateau.threshold(10)
        )
        unseen_losses = {r["step"]: r["diagnostics"]["unseen_loss"] for r in rows if "diagnostics" in r}
        log = log_of(folder_of_it, None, STEPS)
        threshold = plateau.threshold(10)
        exit_step = plateau.unseen_plateau_exit_step(list(unseen_losses), list(unseen_losses.values()), threshold)
        assert log._record.tracker.unseen_exit_step == exit_step
        found.append((last["plateau_left_at"], log._record.tracker.unseen_exit_step))
    assert len(set(found)) == 4


def test_rows_stay_small(folder):
    row = train(folder, EarlyStop(plateau_steps=10), flat)
    added = {name: row[name] for name in ("plateau_left_at", "phase")}
    assert len(json.dumps(added)) < 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "EarlyStop needs EarlyStop.plateau_steps or EarlyStop.converged_steps"),
        ({"plateau_steps": 0}, "EarlyStop.plateau_steps must be a positive integer"),
        ({"converged_steps": 1.5}, "EarlyStop.converged_steps must be of type int or None"),
        ({"plateau_steps": 10, "min_improvement": 1.0}, "EarlyStop.min_improvement must be"),
        ({"plateau_steps": 10, "judged_by": "luck"}, "'training' or 'unseen', not 'luck'"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        EarlyStop(**settings)


def test_judging_by_unseen_tasks_needs_diagnostics():
    with pytest.raises(UsageError, match="needs Training.diagnostics"):
        Training(early_stop=EarlyStop(plateau_steps=10, judged_by="unseen"))
    with pytest.raises(UsageError, match="Training.early_stop must be of type EarlyStop or None"):
        Training(early_stop=10)
