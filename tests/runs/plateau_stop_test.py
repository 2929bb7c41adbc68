"""The rule of a plateau-aware stop, made from ended runs, and what it does in simulated sweeps."""

import numpy as np
import pandas as pd
import pytest

from gpicl_flax.analysis.data import plateau_replay
from gpicl_flax.analysis.data.plateau_replay import KeptRun
from gpicl_flax.analysis.stats.simulated_plateaus import CLASSES, SimulatedSweep
from gpicl_flax.errors import UsageError
from gpicl_flax.records.matching_scores import Growth
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.runs.plateau_stop import EndedRun, PlateauStop, ended_run, make_rule

STANDS, GROWS = Growth(0.02, 0.0, 0.0), Growth(0.1, 0.01, 0.01)


def stays(step=1000, growth=STANDS):
    return EndedRun(step, False, None, {at: growth for at in range(100, step + 1, 100)})


def leaves(step, score=0.5):
    """A run whose score stands until 300 steps before it leaves."""
    return EndedRun(step, True, score, {at: STANDS if at < step - 300 else GROWS for at in range(100, step, 100)})


def test_the_probability_is_that_of_like_runs_whose_score_stood_too():
    # The growths of those that left have the median 0.01: from 0.02 to 0.5 it takes 322 steps.
    like = [stays() for _ in range(9)] + [leaves(step) for step in (600, 700, 800, 900, 1000)]
    rule = make_rule(PlateauStop(), like, 1000)
    assert (rule.like, rule.left, rule.stayed, rule.missed, rule.score, rule.growth) == (14, 5, 9, 0, 0.5, 0.01)
    assert rule.steps == tuple(range(100, 1000, 100))
    # Until 600 all scores grow in time, at the rate of the like. From then on those of runs that leave have grown.
    assert rule.probability(600) == 1.0
    assert rule.probability(700) == pytest.approx(1 - 9 / 9 * (1 - 0.5 / 10))


def test_censored_runs_count_until_their_end():
    # All stand at 700. One leaves at 800, three are cut off at 850, one leaves at 900, six stay.
    like = [leaves(800), leaves(900), *(stays(850) for _ in range(3)), *(stays() for _ in range(6))]
    like = [run._replace(growths={700: STANDS}) for run in like]
    rule = make_rule(PlateauStop(confidence=0.5), [*like, *(leaves(300) for _ in range(9))], 1000)
    assert (rule.missed, rule.stayed) == (1, 6)
    assert rule.probability(700) == pytest.approx(1 - (10 / 11) * (6 / 7) * (1 - 0.5 / 7))


@pytest.mark.parametrize(
    "like",
    [
        [],
        [stays()] * 30,  # none left: at which score one leaves is not known
        [stays()] * 3 + [leaves(900)],  # fewer than min_runs
        [stays()] * 30 + [leaves(900)],  # fewer than min_left
        [stays()] * 30 + [leaves(900)._replace(score=None)] * 9,
        [stays()] * 30 + [leaves(900)._replace(growths={800: STANDS})] * 9,  # their scores jump
    ],
)
def test_a_rule_from_runs_that_say_too_little_never_ends_a_run(like):
    rule = make_rule(PlateauStop(), like, 1000)
    assert rule.steps == () and rule.probability(900) == 1.0


def test_where_no_like_run_stays_to_the_end_nothing_is_known():
    rule = make_rule(PlateauStop(), [stays(900)] * 30 + [leaves(600)] * 9, 1000)
    assert set(rule.leave_probability) == {1.0}


def test_a_plateau_is_left_by_either_loss():
    def row(step, loss, unseen):
        diagnostics = {"unseen_loss": unseen, "unseen_accuracy_last": 0.1, "matching_score": [[step / 1000]]}
        return {"step": step, "loss_ema": loss, "diagnostics": diagnostics}

    def of(*rows):
        return ended_run(rows, PlateauTracker(10, None))

    assert of() is None
    assert of(row(10, 2.3, 2.3), row(20, 2.3, 2.3)) == EndedRun(20, False)
    assert of(row(10, 2.3, 2.3), row(20, 2.1, 2.3), row(30, 2.3, 2.3)) == EndedRun(20, True, 0.02)
    assert of(row(10, 2.3, 2.3), row(20, 2.3, 2.0), row(30, 2.3, 2.3)) == EndedRun(20, True, 0.02)
    stayed = of(*(row(step, 2.3, 2.3) for step in range(10, 70, 10)))
    assert stayed is not None and list(stayed.growths) == [40, 50, 60]


def replayed(world, sweeps, **settings):
    tables = []
    for seed in range(sweeps):
        tables.append(plateau_replay.replay(simulated(world, seed), PlateauStop(**settings)))
    return plateau_replay.outcome(pd.concat(tables))


def simulated(world, seed):
    rng = np.random.default_rng(seed)
    info = {"num_classes": CLASSES, "steps": world.steps}
    return [KeptRun(str(n), info, world.rows(length, rng), "") for n, length in enumerate(world.lengths(rng))]


@pytest.mark.parametrize("sweeps", [10, pytest.param(80, marks=pytest.mark.slow)])
def test_of_runs_that_it_ends_at_most_one_in_fifty_would_have_left(sweeps):
    worlds = [
        SimulatedSweep(runs=26, left=0.35),
        SimulatedSweep(runs=26, left=0.3, growing=0.3),
        SimulatedSweep(runs=26, left=0.35, spread=1.2),
    ]
    found = [replayed(world, sweeps) for world in worlds]
    ended, wrong = sum(each.ended for each in found), sum(each.wrong for each in found)
    assert ended > sweeps and wrong * 50 <= ended
    assert all(each.saved > 0.005 for each in found)


@pytest.mark.parametrize("world", [{"scores": "none"}, {"scores": "unrelated"}, {"growing": 0.05}])
def test_where_scores_say_nothing_it_ends_hardly_any_run(world):
    found = replayed(SimulatedSweep(runs=26, left=0.35, **world), 10)
    assert found.wrong * 50 <= found.runs and found.ended * 20 <= found.runs


def test_like_runs_share_all_bindings_but_some():
    settings = PlateauStop(differ_in=["Run.seed", "*.learning_rate"])
    one = {"Run.seed": 0, "Run.labels": {"a": "b"}, "adam.learning_rate": 1e-3, "Training.steps": 10}
    assert settings.likeness(one) == settings.likeness(
        {**one, "Run.seed": 1, "adam.learning_rate": 1.0, "Run.labels": {}}
    )
    assert settings.likeness(one) != settings.likeness({**one, "Training.steps": 20})


def test_settings_are_those_of_gin():
    assert PlateauStop.from_gin(None) is None
    assert PlateauStop.from_gin({}) == PlateauStop()
    assert PlateauStop.from_gin({"confidence": 0.95}) == PlateauStop(confidence=0.95)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"certainty": 0.9}, "sweep.plateau_stop must be None or a dict with some of confidence, min_runs"),
        (0.9, "must be None or a dict"),
        ({"confidence": 1.0}, "sweep.plateau_stop.confidence must be less than 1"),
        ({"min_runs": 0}, "sweep.plateau_stop.min_runs must be a positive integer"),
        ({"differ_in": "Run.seed"}, "sweep.plateau_stop.differ_in must be of type list or tuple"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        PlateauStop.from_gin(values)
