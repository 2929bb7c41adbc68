"""Bisection: points follow from the outcomes of earlier ones, until a threshold lies between two neighbours."""

import math
import shutil

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import grid, listing, outcomes, runner, stages
from gpicl_flax.sweep.bisection import Bisection, Bracket

BINDINGS = ["Run.model = @LSTM()", "LSTM.hidden_size = 4", "Training.steps = 10", "Training.checkpoint_period = 10"]
GRIDS = "sweep.grids = [{'LSTM.hidden_size': [4, 8], 'Run.seed': [0, 1]}]"
BISECT = ["sweep.bisect = {'TaskDistribution.num_tasks': [16, 65536]}", "sweep.bisect_threshold = 0.3"]
KEY = "TaskDistribution.num_tasks"


@pytest.fixture
def config(small_bindings):
    def make(*more, grids=GRIDS, bisect=BISECT):
        return parse([], [*small_bindings, *BINDINGS, grids, *bisect, *more])

    return make


def simulated(accuracy_of, ended):
    """Outcomes of points that have ended, by a function of hidden size and value."""

    def found(points, metric):
        sign = 1 if metric == "accuracy" else -1
        return [
            sign * accuracy_of(p.overrides["LSTM.hidden_size"], p.overrides[KEY]) if p.digest in ended else None
            for p in points
        ]

    return found


def follow(config, accuracy_of):
    """Ends what is known until nothing is pending; returns the values of each size, and the rounds."""
    ended, rounds = set(), 0
    while True:
        points = stages.points(config, simulated(accuracy_of, ended))
        new = {point.digest for point in points if not point.is_pending} - ended
        if not new:
            break
        rounds += 1
        ended |= new
    values = {}
    for point in points:
        assert not point.is_pending
        values.setdefault(point.overrides["LSTM.hidden_size"], set()).add(point.overrides[KEY])
    return values, rounds, stages.summary(config, simulated(accuracy_of, ended))


@pytest.mark.parametrize("resolution", [1.1, 2.0, 4.0])
def test_the_threshold_lies_between_two_neighbours_that_are_close_enough(config, resolution):
    thresholds = {4: 700.0, 8: 20000.0}
    values, _, lines = follow(
        config(f"sweep.bisect_resolution = {resolution}"), lambda size, k: 0.5 if k >= thresholds[size] else 0.1
    )
    for size, found in values.items():
        below, above = (max(v for v in found if v < thresholds[size]), min(v for v in found if v >= thresholds[size]))
        assert above / below <= resolution
        assert len(found) <= 2 + math.ceil(math.log2(math.log(4096) / math.log(resolution)))
        assert any(
            f"hidden_size={size}: accuracy crosses 0.3 between num_tasks = {below} and {above}" in x for x in lines
        )


def test_a_falling_loss_is_bisected_as_well(config):
    values, _, lines = follow(config("sweep.bisect_metric = 'loss'"), lambda size, k: 0.1 if k >= 1000 else 0.5)
    below, above = max(v for v in values[4] if v < 1000), min(v for v in values[4] if v >= 1000)
    assert above / below <= 2 and f"loss crosses 0.3 between num_tasks = {below} and {above}" in lines[0]


def test_without_a_change_nothing_follows_and_that_is_said(config):
    values, rounds, lines = follow(config(), lambda size, k: 0.1)
    assert rounds == 1 and values == {4: {16, 65536}, 8: {16, 65536}}
    assert lines[0].endswith("accuracy crosses 0.3 nowhere from num_tasks = 16 to 65536")


def test_of_several_changes_the_lowest_is_followed(config):
    config = config(bisect=["sweep.bisect = {'TaskDistribution.num_tasks': [16, 256, 4096, 65536]}", BISECT[1]])
    values, _, lines = follow(config, lambda size, k: 0.5 if 64 <= k < 1000 else 0.1)
    assert values[4] == {16, 256, 4096, 65536, 64, 32}
    assert "between num_tasks = 32 and 64" in lines[0]


def test_what_is_not_known_yet_is_pending_and_counted(config):
    points = stages.points(config())
    assert sum(not point.is_pending for point in points) == 2 * 2 * 2
    # 16 to 65536 is 2^12: four halvings of the exponent to a ratio of 2.
    assert sum(point.is_pending for point in points) == 2 * 2 * 4
    assert listing.counts(points) == "24 points: 24 to find a threshold"
    assert len(listing.resolve_all(points)) == 24
    assert stages.summary(config(), outcomes.unknown)[0].endswith(": not known yet")
    one = {point.digest for point in points[:3]}
    later = stages.points(config(), simulated(lambda size, k: 0.5 if k > 100 else 0.1, one))
    assert [point.run_id for point in later] == [point.run_id for point in points]


def test_a_run_that_diverged_does_not_pass_and_a_damaged_one_stops_its_configuration(config):
    settings = Bisection.from_config(config())
    assert not settings.passes([0.9, -math.inf]) and settings.passes([0.2, 0.5])
    ended = {point.digest for point in stages.points(config()) if not point.is_pending}
    found = simulated(lambda size, k: math.nan if (size, k) == (4, 16) else 0.5 if k > 100 else 0.1, ended)
    points = stages.points(config(), found)
    new = [point for point in points if not point.is_pending and point.digest not in ended]
    assert {(point.overrides["LSTM.hidden_size"], point.overrides[KEY]) for point in new} == {(8, 1024)}


def test_middles_are_geometric_and_end_between_neighbouring_integers(config):
    settings = Bisection.from_config(config("sweep.bisect_resolution = 1.01"))
    assert settings.middle(Bracket(16, 65536)) == 1024
    assert settings.middle(Bracket(4, 5)) is None
    assert settings.middle(Bracket(0.5, 2.0)) == 1.0
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, high = sorted(int(v) for v in rng.integers(1, 10**6, 2))
        middle = settings.middle(Bracket(low, high)) if low < high else None
        assert middle is None or low < middle < high and isinstance(middle, int)


def test_points_are_those_that_a_grid_with_their_values_has(config):
    mine = stages.points(config())[0]
    grids = "sweep.grids = [{'LSTM.hidden_size': [4], 'TaskDistribution.num_tasks': [16], 'Run.seed': [0]}]"
    (theirs,) = grid.points(config(grids=grids, bisect=[]))
    assert mine.digest == theirs.digest and sorted(mine.names) == sorted(theirs.names)


@pytest.mark.parametrize(
    ("bisect", "words"),
    [
        (["sweep.bisect = {'TaskDistribution.num_tasks': [16]}"], "at least two positive numbers, ascending"),
        (["sweep.bisect = {'TaskDistribution.num_tasks': [64, 16]}"], "at least two positive numbers, ascending"),
        (["sweep.bisect = {'TaskDistribution.num_tasks': [0, 16]}"], "at least two positive numbers, ascending"),
        (["sweep.bisect = {'TaskDistribution.num_tasks': [1, None]}"], "at least two positive numbers, ascending"),
        (["sweep.bisect = {'a': [1, 2]}"], "sweep.bisect must be {binding: values}, with one binding"),
        (["sweep.bisect = {'LSTM.hidden_size': [4, 8]}", BISECT[1]], "LSTM.hidden_size is also set by sweep.grids"),
        ([BISECT[0]], "sweep.bisect needs sweep.bisect_threshold, a number"),
        ([*BISECT, "sweep.bisect_resolution = 1.0"], "sweep.bisect_resolution must be above 1"),
        ([*BISECT, "sweep.bisect_metric = 'f1'"], "sweep.bisect_metric must be one of accuracy, loss, not 'f1'"),
        ([*BISECT, "sweep.select = {'adam.b1': [0.8, 0.9]}"], "sweep.select and sweep.bisect exclude each other"),
        ([BISECT[1]], "sweep.bisect_threshold has no effect without sweep.bisect"),
    ],
)
def test_wrong_settings_are_usage_errors(config, bisect, words):
    with pytest.raises(UsageError, match=words):
        stages.points(config(bisect=bisect))


@pytest.mark.slow
def test_a_sweep_bisects_in_one_call_and_goes_on_after_an_interruption(config, tmp_path):
    # The accuracy of a run that does not diverge is above the threshold, whatever it learns.
    grids = "sweep.grids = [{'Run.seed': [0]}]"
    bisect = ["sweep.bisect = {'adam.learning_rate': [1e-3, 1e30]}", "sweep.bisect_threshold = 0.01"]
    config = config("sweep.bisect_resolution = 1e12", grids=grids, bisect=["Run.optimizer = @adam()", *bisect])

    def run(workdir):
        with StopRequest() as stop, pytest.raises(GpiclError, match="diverged"):
            runner.run_all(
                lambda: stages.points(config, outcomes.in_folder(workdir)), workdir, stop, say=lambda x: None
            )
        return sorted(path.name for path in workdir.iterdir())

    names = run(tmp_path / "whole")
    assert len(names) == 4  # 1e-3 and 1e30, then two of their geometric means
    (line,) = stages.summary(config, outcomes.in_folder(tmp_path / "whole"))
    assert "crosses 0.01 between learning_rate = " in line and "so far" not in line
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / next(name for name in names if "=0.001_" in name))
    assert run(tmp_path / "half") == names
